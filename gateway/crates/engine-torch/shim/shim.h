// The C interface between the crate and libtorch's C++: what tch does not offer.
//
// Every function that can meet a C++ exception returns a status; none lets one escape. The text
// of the last failure of the calling thread is kept for pst_last_error(). Handles are owned by
// the Rust side, which gives each back exactly once. src/ffi.rs mirrors this file.
#pragma once

#include <stddef.h>
#include <stdint.h>

extern "C" {

// What became of a call.
enum {
  PST_OK = 0,
  PST_FAILED = 1,  // libtorch threw
  PST_RAISED = 2,  // the model's own `raise` or `assert`
  PST_MEMORY = 3,  // an allocation failed
  PST_DEVICE = 4,  // the accelerator or its driver failed
  PST_ANSWER = 5,  // forward() returned something that is no set of dense tensors
};

struct PstModule;   // a loaded module with its forward method and device
struct PstInputs;   // the arguments of one forward
struct PstAnswer;   // what one forward returned, flattened
struct PstTensor;   // one output, kept alive while its bytes are in use

// Borrowed from the module, valid while it lives.
struct PstArgument {
  const char* name;
  size_t name_length;
  bool takes_tensor;
  bool has_default;
};

// Borrowed from the answer, valid until the answer is freed or the output is taken.
struct PstView {
  const uint8_t* data;
  size_t bytes;
  const int64_t* shape;
  size_t rank;
  int8_t scalar_type;  // c10::ScalarType
  bool sole_owner;     // nothing else refers to the memory, and all of it is this output
};

// Memory of one device, in bytes.
struct PstDeviceMemory {
  uint64_t allocated;  // in use by this process's tensors
  uint64_t reserved;   // held by this process
  uint64_t free;       // for anybody
  uint64_t total;
};

// FP32 values that a test module holds as a buffer.
struct PstBuffer {
  const char* name;
  const float* values;
  const int64_t* shape;
  size_t rank;
};

const char* pst_last_error(size_t* length);

// --- process and thread settings ---
const char* pst_version_built();
int32_t pst_version_loaded(const char** text);  // valid until the thread's next call
int32_t pst_set_interop_threads(int32_t count);
// How many threads an operator uses that the calling thread runs.
int32_t pst_set_threads(int32_t count);
void pst_prepare_thread();
void pst_set_print_handler(void (*handler)(const char*, size_t));
int32_t pst_cuda_devices(int32_t* count);

// --- CUDA devices, by index ---
// Whether the device answers, by a little work on the calling thread's own stream.
int32_t pst_device_probe(int32_t index);
int32_t pst_device_memory(int32_t index, PstDeviceMemory* out);

// --- modules ---
// `device` is a CUDA index, or -1 for the CPU; `threads` are those inside one operator. Nothing of
// `data` is referred to afterwards.
int32_t pst_module_load(
    const uint8_t* data, size_t length, int32_t device, int32_t threads, PstModule** out);
// A copy whose floating-point weights are BF16, or whose weights of rank 4 have their channels
// last; its inputs are converted alike in each run. `module` stays as is.
int32_t pst_module_convert(
    const PstModule* module, bool reduced, bool channels_last, PstModule** out);
// `optimize`: false freezes, true freezes and then rewrites for inference. `module` stays as is.
int32_t pst_module_transform(const PstModule* module, bool optimize, PstModule** out);
void pst_module_free(PstModule* module);
size_t pst_module_arguments(const PstModule* module);
void pst_module_argument(const PstModule* module, size_t index, PstArgument* out);

// --- runs ---
int32_t pst_inputs_new(size_t count, PstInputs** out);
void pst_inputs_free(PstInputs* inputs);
// Whether inputs of this module are best filled in pinned memory.
bool pst_module_wants_pinned(const PstModule* module);
// Appends an uninitialised CPU tensor, pinned on request, and lends its memory to be filled.
int32_t pst_inputs_add(
    PstInputs* inputs, int8_t scalar_type, bool pinned, const size_t* shape, size_t rank,
    uint8_t** memory, size_t* bytes);
// Brings what was filled to where and how the module takes it. Copies to a device are only begun.
int32_t pst_inputs_move(PstInputs* inputs, const PstModule* module);
// Empties `inputs` whatever happens. May be called by several threads on one module. Returns when
// the result is there; copies of it from a device are only begun.
int32_t pst_module_forward(const PstModule* module, PstInputs* inputs, PstAnswer** out);
// Runs forward `times` over on the same inputs, and nothing else: what a bare loop would do.
int32_t pst_module_repeat(const PstModule* module, const PstInputs* inputs, size_t times);
// After memory ran out: gives what its device's allocator keeps for later back to the device.
void pst_module_relieve(const PstModule* module);
size_t pst_answer_size(const PstAnswer* answer);
// Whether the outputs have names, as those of a dict have.
bool pst_answer_is_named(const PstAnswer* answer);
// Index of the output of this name, or -1.
int64_t pst_answer_find(const PstAnswer* answer, const char* name, size_t length);
// Name of output `index`, or null where it has none; lives as long as the answer.
const char* pst_answer_name(const PstAnswer* answer, size_t index, size_t* length);
// Makes output `index` dense on the CPU and describes it. A BF16 output becomes `wanted`, another
// floating-point type; -1 leaves every output as it is.
int32_t pst_answer_view(PstAnswer* answer, size_t index, int8_t wanted, PstView* out);
// Takes output `index` out of the answer; its memory stays where the view said.
int32_t pst_answer_take(PstAnswer* answer, size_t index, PstTensor** out);
void pst_answer_free(PstAnswer* answer);
void pst_tensor_free(PstTensor* tensor);

// --- test modules ---
// Compiles TorchScript source and saves it as a module file.
int32_t pst_write_module(
    const char* source, const PstBuffer* buffers, size_t count, const char* path);

}  // extern "C"
