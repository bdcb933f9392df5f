// How Rust and C++ speak: tensors cross as the `at::Tensor*` that tch holds; messages are in memory of `malloc`, null where all went well.

#pragma once

#include <cstring>
#include <exception>

namespace dit_torch {

// Nothing thrown leaves C++.
template <typename Work>
char* guarded(Work work) {
  try {
    work();
    return nullptr;
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception of an unknown kind");
  }
}

} // namespace dit_torch
