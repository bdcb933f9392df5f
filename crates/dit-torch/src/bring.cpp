// Tensors of the host for a GPU that is not waited for.

#include "crossing.h"

#include <ATen/core/Tensor.h>

// `result` is owned by the caller.
extern "C" char* dit_torch_bring(at::Tensor* tensor, int64_t gpu, at::Tensor** result) {
  return dit_torch::guarded([&] {
    const bool non_blocking = true;
    const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(gpu));
    // A GPU reads memory of the host by itself where the system may not move it.
    *result = new at::Tensor(tensor->pin_memory().to(device, tensor->scalar_type(), non_blocking));
  });
}
