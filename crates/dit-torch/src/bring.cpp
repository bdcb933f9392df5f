// Tensors of the host for a GPU that is not waited for.

#include "crossing.h"

#include <ATen/core/Tensor.h>

// `result` is owned by the caller.
extern "C" char* dit_torch_bring(at::Tensor* tensor, int64_t gpu, at::Tensor** result) {
  return dit_torch::guarded([&] {
    const bool non_blocking = true;
    const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(gpu));
    // Pinned memory has a place for each value.
    const auto dense = tensor->is_non_overlapping_and_dense() ? *tensor : tensor->contiguous();
    // A GPU reads memory of the host by itself where the system may not move it.
    *result = new at::Tensor(dense.pin_memory().to(device, dense.scalar_type(), non_blocking));
  });
}
