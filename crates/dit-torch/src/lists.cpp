// libtorch's operators over lists of tensors.

#include "crossing.h"

#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/stack.h>

namespace {

using dit_torch::guarded;

std::vector<at::Tensor> list(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> all;
  all.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    all.push_back(*tensors[i]);
  }
  return all;
}

} // namespace

extern "C" char* dit_torch_copy(at::Tensor* const* targets, at::Tensor* const* sources, size_t count) {
  return guarded([&] { at::_foreach_copy_(list(targets, count), list(sources, count)); });
}

extern "C" char* dit_torch_add(at::Tensor* const* targets, at::Tensor* const* others, size_t count) {
  return guarded([&] { at::_foreach_add_(list(targets, count), list(others, count)); });
}

extern "C" char* dit_torch_lerp(at::Tensor* const* targets, at::Tensor* const* ends, size_t count, double weight) {
  return guarded([&] { at::_foreach_lerp_(list(targets, count), list(ends, count), at::Scalar(weight)); });
}

extern "C" char* dit_torch_scale(at::Tensor* const* targets, size_t count, double factor) {
  return guarded([&] { at::_foreach_mul_(list(targets, count), at::Scalar(factor)); });
}

// `result` is owned by the caller.
extern "C" char* dit_torch_norm(at::Tensor* const* tensors, size_t count, at::Tensor** result) {
  return guarded([&] {
    const auto norms = at::stack(at::_foreach_norm(list(tensors, count), 2));
    *result = new at::Tensor(norms.to(at::kDouble).norm());
  });
}

extern "C" char* dit_torch_adamw(
    at::Tensor* const* parameters,
    at::Tensor* const* gradients,
    at::Tensor* const* means,
    at::Tensor* const* squares,
    size_t count,
    at::Tensor* step,
    double lr,
    double beta1,
    double beta2,
    double weight_decay,
    double eps) {
  return guarded([&] {
    const bool amsgrad = false, maximize = false;
    at::_fused_adamw_(
        list(parameters, count),
        list(gradients, count),
        list(means, count),
        list(squares, count),
        {},
        std::vector<at::Tensor>(count, *step),
        lr,
        beta1,
        beta2,
        weight_decay,
        eps,
        amsgrad,
        maximize);
  });
}
