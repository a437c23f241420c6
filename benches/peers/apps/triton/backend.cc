// A backend for NVIDIA Triton that runs TorchScript models with libtorch, for models with one FP32
// input and one FP32 output whose first dimension is the batch.
//
// The wheel that carries tritonserver has no libtorch backend. This one does per batch what a
// hand-tuned one would: inputs are gathered into one reused buffer (a lone request is read in place),
// the frozen module runs once in inference mode on one thread, answers are written straight into the
// buffers that Triton sends.

#include <ATen/Parallel.h>
#include <torch/script.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

// === the part of Triton's C interface that is used here

extern "C" {
struct TRITONSERVER_Error;
struct TRITONBACKEND_Backend;
struct TRITONBACKEND_Model;
struct TRITONBACKEND_ModelInstance;
struct TRITONBACKEND_Request;
struct TRITONBACKEND_Response;
struct TRITONBACKEND_Input;
struct TRITONBACKEND_Output;

TRITONSERVER_Error* TRITONSERVER_ErrorNew(int code, const char* message);
void TRITONSERVER_ErrorDelete(TRITONSERVER_Error*);
const char* TRITONSERVER_ErrorMessage(TRITONSERVER_Error*);
TRITONSERVER_Error* TRITONBACKEND_ApiVersion(uint32_t* major, uint32_t* minor);
TRITONSERVER_Error* TRITONBACKEND_ModelRepository(TRITONBACKEND_Model*, int* kind, const char** path);
TRITONSERVER_Error* TRITONBACKEND_ModelVersion(TRITONBACKEND_Model*, uint64_t* version);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceModel(TRITONBACKEND_ModelInstance*, TRITONBACKEND_Model**);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceState(TRITONBACKEND_ModelInstance*, void** state);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceSetState(TRITONBACKEND_ModelInstance*, void* state);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceReportStatistics(
    TRITONBACKEND_ModelInstance*, TRITONBACKEND_Request*, bool success, uint64_t start,
    uint64_t compute_start, uint64_t compute_end, uint64_t end);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceReportBatchStatistics(
    TRITONBACKEND_ModelInstance*, uint64_t rows, uint64_t start, uint64_t compute_start,
    uint64_t compute_end, uint64_t end);
TRITONSERVER_Error* TRITONBACKEND_RequestInputByIndex(
    TRITONBACKEND_Request*, uint32_t index, TRITONBACKEND_Input**);
TRITONSERVER_Error* TRITONBACKEND_RequestOutputName(
    TRITONBACKEND_Request*, uint32_t index, const char** name);
TRITONSERVER_Error* TRITONBACKEND_RequestRelease(TRITONBACKEND_Request*, uint32_t flags);
TRITONSERVER_Error* TRITONBACKEND_InputProperties(
    TRITONBACKEND_Input*, const char** name, int* datatype, const int64_t** shape,
    uint32_t* dimensions, uint64_t* bytes, uint32_t* buffers);
TRITONSERVER_Error* TRITONBACKEND_InputBuffer(
    TRITONBACKEND_Input*, uint32_t index, const void** buffer, uint64_t* bytes, int* memory,
    int64_t* memory_id);
TRITONSERVER_Error* TRITONBACKEND_ResponseNew(TRITONBACKEND_Response**, TRITONBACKEND_Request*);
TRITONSERVER_Error* TRITONBACKEND_ResponseOutput(
    TRITONBACKEND_Response*, TRITONBACKEND_Output**, const char* name, int datatype,
    const int64_t* shape, uint32_t dimensions);
TRITONSERVER_Error* TRITONBACKEND_OutputBuffer(
    TRITONBACKEND_Output*, void** buffer, uint64_t bytes, int* memory, int64_t* memory_id);
TRITONSERVER_Error* TRITONBACKEND_ResponseSend(
    TRITONBACKEND_Response*, uint32_t flags, TRITONSERVER_Error*);
}

namespace {

constexpr int INTERNAL = 1;
constexpr int UNSUPPORTED = 5;
constexpr int FP32 = 11;
constexpr int CPU = 0;
constexpr int CPU_PINNED = 1;
constexpr uint32_t RELEASE_ALL = 1;
constexpr uint32_t FINAL = 1;
// The interface's major version; its minor versions only add to it.
constexpr uint32_t API_MAJOR = 1;

uint64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Turns an error of Triton's into an exception.
void check(TRITONSERVER_Error* error) {
  if (error == nullptr) return;
  std::string message = TRITONSERVER_ErrorMessage(error);
  TRITONSERVER_ErrorDelete(error);
  throw std::runtime_error(message);
}

// For what cannot be helped any more.
void ignore(TRITONSERVER_Error* error) {
  if (error != nullptr) TRITONSERVER_ErrorDelete(error);
}

template <typename Action>
TRITONSERVER_Error* guarded(Action action) {
  try {
    action();
    return nullptr;
  } catch (const std::exception& error) {
    return TRITONSERVER_ErrorNew(INTERNAL, error.what());
  }
}

struct Instance {
  torch::jit::Module module;
  std::vector<float> gathered;
};

// The input of one request.
struct Part {
  TRITONBACKEND_Input* input;
  std::vector<int64_t> shape;
  uint32_t buffers;
  uint64_t bytes;
};

Part part_of(TRITONBACKEND_Request* request) {
  Part part{};
  int datatype = 0;
  const int64_t* shape = nullptr;
  uint32_t dimensions = 0;
  check(TRITONBACKEND_RequestInputByIndex(request, 0, &part.input));
  check(TRITONBACKEND_InputProperties(
      part.input, nullptr, &datatype, &shape, &dimensions, &part.bytes, &part.buffers));
  if (datatype != FP32 || dimensions == 0) throw std::runtime_error("the input must be FP32 with a batch dimension");
  part.shape.assign(shape, shape + dimensions);
  return part;
}

const void* buffer_of(const Part& part, uint32_t index, uint64_t* bytes) {
  const void* buffer = nullptr;
  int memory = CPU;
  int64_t memory_id = 0;
  check(TRITONBACKEND_InputBuffer(part.input, index, &buffer, bytes, &memory, &memory_id));
  if (memory != CPU && memory != CPU_PINNED) throw std::runtime_error("the input is not in main memory");
  return buffer;
}

// All rows as one tensor: in place when they lie together already, else gathered.
torch::Tensor gather(Instance& instance, const std::vector<Part>& parts) {
  std::vector<int64_t> shape = parts[0].shape;
  if (parts.size() == 1 && parts[0].buffers == 1) {
    uint64_t bytes = 0;
    const void* buffer = buffer_of(parts[0], 0, &bytes);
    return torch::from_blob(const_cast<void*>(buffer), shape, torch::kFloat32);
  }
  uint64_t total = 0;
  shape[0] = 0;
  for (const Part& part : parts) {
    if (!std::equal(part.shape.begin() + 1, part.shape.end(), shape.begin() + 1, shape.end()))
      throw std::runtime_error("the inputs of a batch have different shapes");
    shape[0] += part.shape[0];
    total += part.bytes;
  }
  instance.gathered.resize(total / sizeof(float));
  auto* place = reinterpret_cast<char*>(instance.gathered.data());
  for (const Part& part : parts) {
    for (uint32_t index = 0; index < part.buffers; ++index) {
      uint64_t bytes = 0;
      const void* buffer = buffer_of(part, index, &bytes);
      std::memcpy(place, buffer, bytes);
      place += bytes;
    }
  }
  return torch::from_blob(instance.gathered.data(), shape, torch::kFloat32);
}

// Writes the rows that belong to a request into its answer; returns where the next one's begin.
const float* answer(TRITONBACKEND_Request* request, TRITONBACKEND_Response* response,
                    const torch::Tensor& outputs, const float* from, int64_t rows) {
  std::vector<int64_t> shape = outputs.sizes().vec();
  const int64_t elements = rows * (outputs.numel() / shape[0]);
  shape[0] = rows;
  const char* name = nullptr;
  TRITONBACKEND_Output* output = nullptr;
  void* buffer = nullptr;
  int memory = CPU;
  int64_t memory_id = 0;
  check(TRITONBACKEND_RequestOutputName(request, 0, &name));
  check(TRITONBACKEND_ResponseOutput(
      response, &output, name, FP32, shape.data(), static_cast<uint32_t>(shape.size())));
  check(TRITONBACKEND_OutputBuffer(
      output, &buffer, static_cast<uint64_t>(elements) * sizeof(float), &memory, &memory_id));
  if (memory != CPU && memory != CPU_PINNED) throw std::runtime_error("the output is not in main memory");
  std::memcpy(buffer, from, static_cast<size_t>(elements) * sizeof(float));
  return from + elements;
}

torch::Tensor forward(Instance& instance, const torch::Tensor& inputs) {
  torch::Tensor outputs = instance.module.forward({inputs}).toTensor().contiguous();
  if (outputs.scalar_type() != torch::kFloat32 || outputs.dim() == 0 || outputs.size(0) != inputs.size(0))
    throw std::runtime_error("the output must be FP32 with a row for each of the input");
  return outputs;
}

// Answers every request and gives it back, whatever happens: from here on they are ours.
void execute(TRITONBACKEND_ModelInstance* handle, Instance& instance,
             TRITONBACKEND_Request** requests, uint32_t count) {
  const uint64_t start = now();
  uint64_t compute_start = start;
  uint64_t compute_end = start;
  std::vector<Part> parts;
  torch::Tensor outputs;
  std::string failure;
  // The guard is the thread's; Triton keeps one thread for an instance but does not promise it.
  const c10::InferenceMode inference;
  try {
    at::set_num_threads(1);
    parts.reserve(count);
    for (uint32_t index = 0; index < count; ++index) parts.push_back(part_of(requests[index]));
    const torch::Tensor inputs = gather(instance, parts);
    compute_start = now();
    outputs = forward(instance, inputs);
    compute_end = now();
  } catch (const std::exception& error) {
    failure = error.what();
  }
  const float* from = failure.empty() ? outputs.const_data_ptr<float>() : nullptr;
  std::vector<bool> answered(count, false);
  for (uint32_t index = 0; index < count; ++index) {
    TRITONBACKEND_Response* response = nullptr;
    TRITONSERVER_Error* refusal = nullptr;
    ignore(TRITONBACKEND_ResponseNew(&response, requests[index]));
    if (response == nullptr) continue;
    if (failure.empty()) {
      refusal = guarded([&] { from = answer(requests[index], response, outputs, from, parts[index].shape[0]); });
    } else {
      refusal = TRITONSERVER_ErrorNew(INTERNAL, failure.c_str());
    }
    answered[index] = refusal == nullptr;
    ignore(TRITONBACKEND_ResponseSend(response, FINAL, refusal));
    if (refusal != nullptr) TRITONSERVER_ErrorDelete(refusal);
  }
  const uint64_t end = now();
  for (uint32_t index = 0; index < count; ++index) {
    ignore(TRITONBACKEND_ModelInstanceReportStatistics(
        handle, requests[index], answered[index], start, compute_start, compute_end, end));
    ignore(TRITONBACKEND_RequestRelease(requests[index], RELEASE_ALL));
  }
  const uint64_t rows = failure.empty() ? static_cast<uint64_t>(outputs.size(0)) : 0;
  ignore(TRITONBACKEND_ModelInstanceReportBatchStatistics(
      handle, rows, start, compute_start, compute_end, end));
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED TRITONSERVER_Error* TRITONBACKEND_Initialize(TRITONBACKEND_Backend*) {
  uint32_t major = 0;
  uint32_t minor = 0;
  if (TRITONSERVER_Error* error = TRITONBACKEND_ApiVersion(&major, &minor)) return error;
  if (major != API_MAJOR) return TRITONSERVER_ErrorNew(UNSUPPORTED, "another major version of the backend interface");
  return guarded([] {
    at::set_num_threads(1);
    at::set_num_interop_threads(1);
  });
}

EXPORTED TRITONSERVER_Error* TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance* handle) {
  return guarded([&] {
    TRITONBACKEND_Model* model = nullptr;
    int kind = 0;
    const char* folder = nullptr;
    uint64_t version = 0;
    check(TRITONBACKEND_ModelInstanceModel(handle, &model));
    check(TRITONBACKEND_ModelRepository(model, &kind, &folder));
    check(TRITONBACKEND_ModelVersion(model, &version));
    const std::string path = std::string(folder) + "/" + std::to_string(version) + "/model.pt";
    auto instance = std::make_unique<Instance>();
    instance->module = torch::jit::load(path, torch::kCPU);
    instance->module.eval();
    instance->module = torch::jit::freeze(instance->module);
    check(TRITONBACKEND_ModelInstanceSetState(handle, instance.get()));
    instance.release();
  });
}

EXPORTED TRITONSERVER_Error* TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance* handle) {
  void* state = nullptr;
  if (TRITONSERVER_Error* error = TRITONBACKEND_ModelInstanceState(handle, &state)) return error;
  delete static_cast<Instance*>(state);
  return nullptr;
}

EXPORTED TRITONSERVER_Error* TRITONBACKEND_ModelInstanceExecute(
    TRITONBACKEND_ModelInstance* handle, TRITONBACKEND_Request** requests, const uint32_t count) {
  void* state = nullptr;
  if (TRITONSERVER_Error* error = TRITONBACKEND_ModelInstanceState(handle, &state)) return error;
  return guarded([&] { execute(handle, *static_cast<Instance*>(state), requests, count); });
}
