// Streams, copies and memory of accelerators, through libtorch's interfaces for any device:
// nothing here refers to a symbol of its CUDA half.
#pragma once

#include <optional>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/Device.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>

namespace device {

// The calling thread's own streams on one device.
struct Lane {
  c10::Stream compute;
  c10::Stream copy;
};

// Taken from libtorch's pool when a thread first asks.
const Lane& lane(c10::Device device);

// Makes the thread's compute stream on `device` the current one; nothing to do for the CPU.
class Scope {
 public:
  explicit Scope(c10::Device device);

  // Waits until the device has done what this thread asked of it, and throws what went wrong.
  void wait() const;

 private:
  c10::Device device_;
  std::optional<c10::StreamGuard> guard_;
};

// An uninitialised CPU tensor, in pinned memory on request: a device can copy from and to that
// while the processor goes on. Throws where no accelerator offers such memory.
at::Tensor host_tensor(c10::IntArrayRef sizes, c10::ScalarType type, bool pinned);

// Outputs on their way to the host.
class Landing {
 public:
  // Replaces each of `tensors` that lies on `from` by a pinned one, into which it is copied on the
  // thread's copy stream once everything on the compute stream is done. Returns then; wait()
  // waits for the copies. Until they have landed, this keeps what they read alive.
  Landing(c10::Device from, std::vector<at::Tensor>& tensors);
  ~Landing();
  Landing(const Landing&) = delete;
  Landing& operator=(const Landing&) = delete;

  void wait();

 private:
  std::vector<at::Tensor> sources_;
  c10::Stream copy_;
  c10::Event landed_;
};

// Gives memory that no tensor uses back to the device.
void empty_cache(c10::Device device) noexcept;

}  // namespace device
