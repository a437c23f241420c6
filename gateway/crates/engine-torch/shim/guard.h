// Turns C++ exceptions into the statuses of shim.h, and keeps their text.
#pragma once

#include <cstdint>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include <c10/util/Exception.h>
#include <torch/csrc/jit/runtime/jit_exception.h>

#include "shim.h"

namespace guard {

inline thread_local std::string last_error;

// forward() returned something that is no set of dense tensors.
struct BadAnswer : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline int32_t report(int32_t status, const char* text) noexcept {
  try {
    last_error = text;
  } catch (...) {
    last_error.clear();  // no memory even for the text
  }
  return status;
}

inline bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// The interpreter rethrows what an operator threw as a plain runtime_error, so that its type is
// lost and only its text tells. The text starts with the model's source, which may say anything;
// the operator's own words follow the last mark.
inline int32_t classify(const char* text) noexcept {
  try {
    std::string words(text);
    const auto mark = words.rfind("\nRuntimeError: ");
    if (mark != std::string::npos) {
      words.erase(0, mark);
    }
    if (contains(words, "can't allocate memory") || contains(words, "out of memory") ||
        contains(words, "std::bad_alloc")) {
      return PST_MEMORY;
    }
    const bool device = contains(words, "CUDA error") || contains(words, "CUDA driver") ||
        contains(words, "cuDNN error") || contains(words, "CUBLAS_STATUS") ||
        contains(words, "NVIDIA driver") || contains(words, "Cannot initialize CUDA");
    return device ? PST_DEVICE : PST_FAILED;
  } catch (...) {
    return PST_MEMORY;
  }
}

// Runs `body` and turns whatever it throws into a status.
template <typename Body>
int32_t guarded(Body&& body) noexcept {
  try {
    body();
    return PST_OK;
  } catch (const BadAnswer& error) {
    return report(PST_ANSWER, error.what());
  } catch (const torch::jit::JITException& error) {
    return report(PST_RAISED, error.what());
  } catch (const std::bad_alloc& error) {
    return report(PST_MEMORY, error.what());
  } catch (const c10::OutOfMemoryError& error) {
    return report(PST_MEMORY, error.what_without_backtrace());
  } catch (const c10::AcceleratorError& error) {
    return report(PST_DEVICE, error.what_without_backtrace());
  } catch (const c10::Error& error) {
    const char* text = error.what_without_backtrace();
    return report(classify(text), text);
  } catch (const std::exception& error) {
    const char* text = error.what();  // once: some exceptions build their text anew each time
    return report(classify(text), text);
  } catch (...) {
    return report(PST_FAILED, "an exception that is no std::exception");
  }
}

}  // namespace guard
