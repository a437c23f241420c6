// The C++ side of the crate; shim.h says what each function promises.

#include "guard.h"
#include "handles.h"
#include "shim.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <c10/core/InferenceMode.h>
#include <caffe2/serialize/read_adapter_interface.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/runtime/print_handler.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/cuda.h>
#include <torch/version.h>

using guard::BadAnswer;
using guard::guarded;

namespace {

// The Rust side passes element types by these numbers.
static_assert(static_cast<int>(c10::ScalarType::Byte) == 0);
static_assert(static_cast<int>(c10::ScalarType::Char) == 1);
static_assert(static_cast<int>(c10::ScalarType::Short) == 2);
static_assert(static_cast<int>(c10::ScalarType::Int) == 3);
static_assert(static_cast<int>(c10::ScalarType::Long) == 4);
static_assert(static_cast<int>(c10::ScalarType::Half) == 5);
static_assert(static_cast<int>(c10::ScalarType::Float) == 6);
static_assert(static_cast<int>(c10::ScalarType::Double) == 7);
static_assert(static_cast<int>(c10::ScalarType::Bool) == 11);
static_assert(static_cast<int>(c10::ScalarType::BFloat16) == 15);
static_assert(static_cast<int>(c10::ScalarType::UInt16) == 27);
static_assert(static_cast<int>(c10::ScalarType::UInt32) == 28);
static_assert(static_cast<int>(c10::ScalarType::UInt64) == 29);

// Reads the module file where it lies. libtorch's stream and file loaders would copy it first.
class MemoryReader final : public caffe2::serialize::ReadAdapterInterface {
 public:
  MemoryReader(const uint8_t* data, size_t length) : data_(data), length_(length) {}

  size_t size() const override {
    return length_;
  }

  size_t read(uint64_t position, void* buffer, size_t count, const char*) const override {
    if (position >= length_) {
      return 0;
    }
    const size_t available = std::min(count, length_ - static_cast<size_t>(position));
    std::memcpy(buffer, data_ + position, available);
    return available;
  }

 private:
  const uint8_t* data_;
  size_t length_;
};

PstModule* wrap(torch::jit::Module module, c10::Device device, int32_t threads) {
  auto forward = module.get_method("forward");
  return new PstModule{std::move(module), std::move(forward), device, threads, false, false};
}

// The same of another module, made from the one given.
PstModule* wrap_like(torch::jit::Module module, const PstModule* like) {
  auto* made = wrap(std::move(module), like->device, like->threads);
  made->reduced = like->reduced;
  made->channels_last = like->channels_last;
  return made;
}

// OpenMP keeps the count for each thread, but libtorch sets it anew from a shared one when a
// thread first asks; so it is asked before it is told.
void use_threads(int32_t count) {
  if (at::get_num_threads() != count) {
    at::set_num_threads(count);
  }
}

// Whether the type can stand for BF16 and BF16 for it, but for precision.
bool is_wide(c10::ScalarType type) {
  return type == c10::kFloat || type == c10::kDouble || type == c10::kHalf;
}

void check_dense(const at::Tensor& tensor) {
  if (tensor.layout() != c10::kStrided || tensor.is_quantized() || tensor.is_nested()) {
    throw BadAnswer("the model answers with a sparse, nested or quantized tensor");
  }
}

void add(PstAnswer& answer, const c10::IValue& value) {
  if (!value.isTensor()) {
    throw BadAnswer("the model answers with a " + value.tagKind() + " where a tensor belongs");
  }
  if (!value.toTensor().defined()) {
    throw BadAnswer("the model answers with an undefined tensor");
  }
  answer.tensors.push_back(value.toTensor());
}

// Accepts a tensor, a tuple or list of tensors, and a dict from names to tensors.
void flatten(const c10::IValue& value, PstAnswer& answer) {
  if (value.isTuple()) {
    for (const auto& element : value.toTupleRef().elements()) {
      add(answer, element);
    }
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef()) {
      add(answer, element);
    }
  } else if (value.isGenericDict()) {
    answer.named = true;
    for (const auto& entry : value.toGenericDict()) {
      if (!entry.key().isString()) {
        throw BadAnswer("the model answers with a dict whose keys are no strings");
      }
      add(answer, entry.value());
      answer.names.push_back(entry.key().toStringRef());
    }
  } else {
    add(answer, value);
  }
}

void (*print_handler)(const char*, size_t) = nullptr;

}  // namespace

extern "C" {

const char* pst_last_error(size_t* length) {
  *length = guard::last_error.size();
  return guard::last_error.data();
}

// === process and thread settings ===

const char* pst_version_built() {
  return TORCH_VERSION;
}

int32_t pst_version_loaded(const char** text) {
  static thread_local std::string version;
  return guarded([&] {
    // The only place where the library that was really loaded says its version.
    const std::string config = at::show_config();
    const std::string key = "TORCH_VERSION=";
    const auto start = config.find(key);
    TORCH_CHECK(start != std::string::npos, "libtorch does not say its version");
    const auto from = start + key.size();
    version = config.substr(from, config.find_first_of(", \n", from) - from);
    *text = version.c_str();
  });
}

int32_t pst_set_interop_threads(int32_t count) {
  return guarded([&] { at::set_num_interop_threads(count); });
}

int32_t pst_set_threads(int32_t count) {
  return guarded([&] { use_threads(count); });
}

void pst_prepare_thread() {
  torch::jit::setGraphExecutorOptimize(true);
}

void pst_set_print_handler(void (*handler)(const char*, size_t)) {
  print_handler = handler;
  torch::jit::setPrintHandler([](const std::string& text) {
    print_handler(text.data(), text.size());
  });
}

int32_t pst_cuda_devices(int32_t* count) {
  return guarded([&] { *count = torch::cuda::device_count(); });
}

// === modules ===

int32_t pst_module_load(
    const uint8_t* data, size_t length, int32_t device, int32_t threads, PstModule** out) {
  return guarded([&] {
    const auto place = device < 0
        ? c10::Device(c10::kCPU)
        : c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device));
    const device::Scope scope(place);
    // Without its debug files a model's error names no source line, but it loads faster and
    // holds less memory; the line would reach nobody but the log.
    auto module = torch::jit::load(std::make_shared<MemoryReader>(data, length), place, false);
    module.eval();
    scope.wait();  // other threads run it on streams of their own
    *out = wrap(std::move(module), place, threads);
  });
}

int32_t pst_module_convert(
    const PstModule* module, bool reduced, bool channels_last, PstModule** out) {
  return guarded([&] {
    const device::Scope scope(module->device);
    c10::AutoGradMode no_gradients(false);
    auto copy = module->module.deepcopy();
    for (const c10::IValue& value : copy.attributes()) {
      if (!value.isTensor() || !value.toTensor().defined()) {
        continue;
      }
      at::Tensor tensor = value.toTensor();
      if (reduced && is_wide(tensor.scalar_type())) {
        tensor.set_data(tensor.to(c10::kBFloat16));
      }
      if (channels_last && tensor.dim() == 4) {
        tensor.set_data(tensor.contiguous(c10::MemoryFormat::ChannelsLast));
      }
    }
    scope.wait();
    auto* made = wrap_like(std::move(copy), module);
    made->reduced = reduced;
    made->channels_last = channels_last;
    *out = made;
  });
}

int32_t pst_module_transform(const PstModule* module, bool optimize, PstModule** out) {
  return guarded([&] {
    const device::Scope scope(module->device);
    use_threads(module->threads);  // packed weights are laid out for as many
    // freeze() copies; optimize_for_inference() would rewrite a module that was saved frozen in
    // place, so it only ever sees our copy.
    auto frozen = torch::jit::freeze(module->module);
    if (optimize) {
      frozen = torch::jit::optimize_for_inference(frozen);
    }
    scope.wait();
    *out = wrap_like(std::move(frozen), module);
  });
}

void pst_module_free(PstModule* module) {
  delete module;
}

size_t pst_module_arguments(const PstModule* module) {
  return module->forward.function().getSchema().arguments().size() - 1;  // the first is `self`
}

void pst_module_argument(const PstModule* module, size_t index, PstArgument* out) {
  const auto& argument = module->forward.function().getSchema().arguments()[index + 1];
  out->name = argument.name().data();
  out->name_length = argument.name().size();
  out->takes_tensor = c10::TensorType::get()->isSubtypeOf(*argument.type());
  out->has_default = argument.default_value().has_value();
}

// === runs ===

int32_t pst_inputs_new(size_t count, PstInputs** out) {
  return guarded([&] {
    auto inputs = std::make_unique<PstInputs>();
    inputs->values.reserve(count + 1);  // the call puts `self` in front
    *out = inputs.release();
  });
}

void pst_inputs_free(PstInputs* inputs) {
  delete inputs;
}

bool pst_module_wants_pinned(const PstModule* module) {
  return !module->device.is_cpu();
}

int32_t pst_inputs_add(
    PstInputs* inputs, int8_t scalar_type, bool pinned, const size_t* shape, size_t rank,
    uint8_t** memory, size_t* bytes) {
  return guarded([&] {
    c10::InferenceMode inference;
    c10::SmallVector<int64_t, 8> sizes(shape, shape + rank);
    at::Tensor tensor =
        device::host_tensor(sizes, static_cast<c10::ScalarType>(scalar_type), pinned);
    *memory = static_cast<uint8_t*>(tensor.mutable_data_ptr());
    *bytes = tensor.nbytes();
    inputs->values.emplace_back(std::move(tensor));
  });
}

int32_t pst_inputs_move(PstInputs* inputs, const PstModule* module) {
  if (module->device.is_cpu() && !module->reduced && !module->channels_last) {
    return PST_OK;
  }
  return guarded([&] {
    c10::InferenceMode inference;
    const device::Scope scope(module->device);
    use_threads(module->threads);
    for (auto& value : inputs->values) {
      // The copy first, as it is: converting on the way would make the processor wait for it.
      at::Tensor tensor = value.toTensor().to(module->device, /*non_blocking=*/true);
      if (module->reduced && is_wide(tensor.scalar_type())) {
        tensor = tensor.to(c10::kBFloat16);
      }
      if (module->channels_last && tensor.dim() == 4) {
        tensor = tensor.contiguous(c10::MemoryFormat::ChannelsLast);
      }
      value = std::move(tensor);
    }
  });
}

int32_t pst_module_forward(const PstModule* module, PstInputs* inputs, PstAnswer** out) {
  return guarded([&] {
    c10::InferenceMode inference;
    const device::Scope scope(module->device);
    use_threads(module->threads);
    // Moved out, so that the answer alone keeps an input alive that the model returns.
    auto arguments = std::move(inputs->values);
    inputs->values.clear();
    const c10::IValue value = module->forward(std::move(arguments));
    auto answer = std::make_unique<PstAnswer>();
    flatten(value, *answer);
    if (!module->device.is_cpu()) {
      for (const auto& tensor : answer->tensors) {
        check_dense(tensor);
      }
      answer->landing = std::make_unique<device::Landing>(module->device, answer->tensors);
    }
    *out = answer.release();
  });
}

int32_t pst_module_repeat(const PstModule* module, const PstInputs* inputs, size_t times) {
  return guarded([&] {
    c10::InferenceMode inference;
    const device::Scope scope(module->device);
    use_threads(module->threads);
    for (size_t count = 0; count < times; ++count) {
      module->forward(inputs->values);
    }
    scope.wait();
  });
}

void pst_module_relieve(const PstModule* module) {
  device::empty_cache(module->device);
}

size_t pst_answer_size(const PstAnswer* answer) {
  return answer->tensors.size();
}

bool pst_answer_is_named(const PstAnswer* answer) {
  return answer->named;
}

int64_t pst_answer_find(const PstAnswer* answer, const char* name, size_t length) {
  for (size_t index = 0; index < answer->names.size(); ++index) {
    const auto& candidate = answer->names[index];
    if (candidate.size() == length && std::memcmp(candidate.data(), name, length) == 0) {
      return static_cast<int64_t>(index);
    }
  }
  return -1;
}

const char* pst_answer_name(const PstAnswer* answer, size_t index, size_t* length) {
  if (index >= answer->names.size()) {
    return nullptr;
  }
  *length = answer->names[index].size();
  return answer->names[index].data();
}

int32_t pst_answer_view(PstAnswer* answer, size_t index, int8_t wanted, PstView* out) {
  return guarded([&] {
    c10::InferenceMode inference;
    if (answer->landing) {
      answer->landing->wait();
    }
    at::Tensor& tensor = answer->tensors.at(index);
    check_dense(tensor);
    const auto type = static_cast<c10::ScalarType>(wanted);
    if (wanted >= 0 && tensor.scalar_type() == c10::kBFloat16 && is_wide(type)) {
      tensor = tensor.to(type);
    }
    tensor = tensor.cpu().resolve_conj().resolve_neg().contiguous();
    const auto& storage = tensor.storage();
    out->data = static_cast<const uint8_t*>(tensor.const_data_ptr());
    out->bytes = tensor.nbytes();
    out->shape = tensor.sizes().data();
    out->rank = tensor.sizes().size();
    out->scalar_type = static_cast<int8_t>(tensor.scalar_type());
    // An output may be an attribute of the module, one of its constants, a second name for
    // another output or a small piece of something large.
    out->sole_owner = tensor.use_count() == 1 && storage.use_count() == 1 &&
        storage.nbytes() == tensor.nbytes();
  });
}

int32_t pst_answer_take(PstAnswer* answer, size_t index, PstTensor** out) {
  return guarded([&] {
    auto taken = std::make_unique<PstTensor>();
    taken->tensor = std::move(answer->tensors.at(index));
    *out = taken.release();
  });
}

void pst_answer_free(PstAnswer* answer) {
  delete answer;
}

void pst_tensor_free(PstTensor* tensor) {
  delete tensor;
}

// === test modules ===

int32_t pst_write_module(
    const char* source, const PstBuffer* buffers, size_t count, const char* path) {
  return guarded([&] {
    torch::jit::Module module("Fixture");
    // As Python's modules have it; eval() and freeze() look for it.
    module.register_attribute("training", c10::BoolType::get(), true);
    for (size_t index = 0; index < count; ++index) {
      const auto& buffer = buffers[index];
      const c10::IntArrayRef shape(buffer.shape, buffer.rank);
      // from_blob refers to the caller's memory; the module needs its own.
      auto values = at::from_blob(const_cast<float*>(buffer.values), shape, at::kFloat).clone();
      module.register_buffer(buffer.name, std::move(values));
    }
    module.define(source);
    module.save(path);
  });
}

}  // extern "C"
