// Streams, copies and memory of accelerators; device.h says what each part promises.

#include "device.h"

#include <map>

#include <ATen/EmptyTensor.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "guard.h"
#include "shim.h"

namespace device {

const Lane& lane(c10::Device device) {
  static thread_local std::map<c10::DeviceIndex, Lane> lanes;
  const auto known = lanes.find(device.index());
  if (known != lanes.end()) {
    return known->second;
  }
  const c10::impl::VirtualGuardImpl guard(device.type());
  const Lane fresh{guard.getStreamFromGlobalPool(device), guard.getStreamFromGlobalPool(device)};
  return lanes.emplace(device.index(), fresh).first->second;
}

Scope::Scope(c10::Device device) : device_(device) {
  if (!device.is_cpu()) {
    guard_.emplace(lane(device).compute);
  }
}

void Scope::wait() const {
  if (!device_.is_cpu()) {
    c10::impl::VirtualGuardImpl(device_.type()).synchronizeStream(lane(device_).compute);
  }
}

at::Tensor host_tensor(c10::IntArrayRef sizes, c10::ScalarType type, bool pinned) {
  return at::detail::empty_cpu(sizes, type, pinned);
}

Landing::Landing(c10::Device from, std::vector<at::Tensor>& tensors)
    : copy_(lane(from).copy), landed_(from.type()) {
  const Lane& streams = lane(from);
  c10::Event computed(from.type());
  computed.record(streams.compute);
  try {
    const c10::StreamGuard guard(streams.copy);
    computed.block(streams.copy);
    sources_.reserve(tensors.size());
    for (auto& tensor : tensors) {
      if (tensor.device().is_cpu()) {
        continue;
      }
      auto target = host_tensor(tensor.sizes(), tensor.scalar_type(), true);
      sources_.push_back(tensor);
      target.copy_(tensor, /*non_blocking=*/true);
      tensor = std::move(target);
    }
    landed_.record(streams.copy);
    // Here, so that the forward's time and its errors are its own.
    computed.synchronize();
  } catch (...) {
    // Copies under way read what is about to be freed.
    try {
      c10::impl::VirtualGuardImpl(from.type()).synchronizeStream(streams.copy);
    } catch (...) {
    }
    throw;
  }
}

void Landing::wait() {
  if (!sources_.empty()) {
    landed_.synchronize();
    sources_.clear();
  }
}

Landing::~Landing() {
  try {
    wait();
  } catch (...) {
    // The device is broken; whoever uses it next learns it.
  }
}

void empty_cache(c10::Device device) noexcept {
  if (device.is_cpu()) {
    return;
  }
  try {
    auto* allocator = c10::getDeviceAllocator(device.type());
    if (allocator->initialized()) {
      allocator->emptyCache();
    }
  } catch (...) {
    // Nothing was given back; the failure that led here is reported already.
  }
}

}  // namespace device

using guard::guarded;

extern "C" {

int32_t pst_device_probe(int32_t index) {
  return guarded([&] {
    c10::InferenceMode inference;
    const c10::Device place(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
    const device::Scope scope(place);
    // A kernel that really runs: after a sticky error this or the wait fails.
    at::zeros({1}, at::TensorOptions().dtype(at::kFloat).device(place));
    scope.wait();
  });
}

int32_t pst_device_memory(int32_t index, PstDeviceMemory* out) {
  return guarded([&] {
    const auto place = static_cast<c10::DeviceIndex>(index);
    auto* allocator = c10::getDeviceAllocator(c10::kCUDA);
    TORCH_CHECK(allocator->initialized(), "nothing has used the device yet");
    const auto stats = allocator->getDeviceStats(place);
    const auto [free, total] = allocator->getMemoryInfo(place);
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    out->allocated = static_cast<uint64_t>(stats.allocated_bytes[all].current);
    out->reserved = static_cast<uint64_t>(stats.reserved_bytes[all].current);
    out->free = free;
    out->total = total;
  });
}

}  // extern "C"
