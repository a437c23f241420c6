// What lies behind the handles of shim.h.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>

#include "device.h"

struct PstModule {
  torch::jit::Module module;
  // Looked up once: finding a method by name costs more than a small model's whole forward.
  torch::jit::Method forward;
  c10::Device device;
  int32_t threads;       // inside one operator
  bool reduced;          // floating-point inputs are converted to BF16
  bool channels_last;    // inputs of rank 4 are laid out so
};

struct PstInputs {
  std::vector<c10::IValue> values;
};

struct PstAnswer {
  std::vector<at::Tensor> tensors;
  std::vector<std::string> names;  // as long as `tensors` for a dict, else empty
  bool named = false;
  // Outputs on their way from a device, if they come from one.
  std::unique_ptr<device::Landing> landing;
};

struct PstTensor {
  at::Tensor tensor;
};
