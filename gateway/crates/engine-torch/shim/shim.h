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
void pst_prepare_thread();
void pst_set_print_handler(void (*handler)(const char*, size_t));
int32_t pst_cuda_devices(int32_t* count);

// --- modules ---
// `device` is a CUDA index, or -1 for the CPU. Nothing of `data` is referred to afterwards.
int32_t pst_module_load(const uint8_t* data, size_t length, int32_t device, PstModule** out);
// `optimize`: false freezes, true freezes and then rewrites for inference. `module` stays as is.
int32_t pst_module_transform(const PstModule* module, bool optimize, PstModule** out);
void pst_module_free(PstModule* module);
size_t pst_module_arguments(const PstModule* module);
void pst_module_argument(const PstModule* module, size_t index, PstArgument* out);

// --- runs ---
int32_t pst_inputs_new(size_t count, PstInputs** out);
void pst_inputs_free(PstInputs* inputs);
// Appends an uninitialised CPU tensor and lends its memory for the caller to fill.
int32_t pst_inputs_add(
    PstInputs* inputs, int8_t scalar_type, const size_t* shape, size_t rank,
    uint8_t** memory, size_t* bytes);
// Moves what was filled to where the module runs; nothing to do for the CPU.
int32_t pst_inputs_move(PstInputs* inputs, const PstModule* module);
// Empties `inputs` whatever happens. May be called by several threads on one module.
int32_t pst_module_forward(const PstModule* module, PstInputs* inputs, PstAnswer** out);
size_t pst_answer_size(const PstAnswer* answer);
// Whether the outputs have names, as those of a dict have.
bool pst_answer_is_named(const PstAnswer* answer);
// Index of the output of this name, or -1.
int64_t pst_answer_find(const PstAnswer* answer, const char* name, size_t length);
// Name of output `index`, or null where it has none; lives as long as the answer.
const char* pst_answer_name(const PstAnswer* answer, size_t index, size_t* length);
// Makes output `index` dense on the CPU and describes it.
int32_t pst_answer_view(PstAnswer* answer, size_t index, PstView* out);
// Takes output `index` out of the answer; its memory stays where the view said.
int32_t pst_answer_take(PstAnswer* answer, size_t index, PstTensor** out);
void pst_answer_free(PstAnswer* answer);
void pst_tensor_free(PstTensor* tensor);

// --- test modules ---
// Compiles TorchScript source and saves it as a module file.
int32_t pst_write_module(
    const char* source, const PstBuffer* buffers, size_t count, const char* path);

}  // extern "C"
