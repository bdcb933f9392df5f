// A node of libtorch's graph of derivatives whose backward pass is a function of Rust's; and what else of the graph tch does not bind.

#include "crossing.h"

#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

namespace {

using dit_torch::guarded;
using torch::autograd::Node;
using torch::autograd::variable_list;

// Takes over `context`; gives one owned tensor, or null, for each place of `results`.
using Backward = char* (*)(void* context, at::Tensor* gradient, const bool* wanted, at::Tensor** results, size_t count);
using Drop = void (*)(void* context);

struct RustNode final : Node {
  RustNode(const char* name, void* context, Backward backward, Drop drop)
      : label(name), context(context), backward(backward), drop(drop) {}

  ~RustNode() override {
    release_variables();
  }

  std::string name() const override {
    return label;
  }

  variable_list apply(variable_list&& gradients) override {
    // What is computed here is not recorded: its own gradient would be zero without a word.
    TORCH_CHECK(!at::GradMode::is_enabled(), label, " can be differentiated once, and a gradient of its gradient was asked for");
    const size_t count = num_outputs();
    variable_list results(count);
    void* own = take();
    TORCH_CHECK(own != nullptr, "a second backward pass through ", label, ": the first took what was kept, retain_graph or not");
    if (!gradients[0].defined()) {
      drop(own);
      return results;
    }
    std::vector<at::Tensor*> places(count, nullptr);
    auto wanted = std::make_unique<bool[]>(count);
    for (size_t i = 0; i < count; ++i) {
      wanted[i] = task_should_compute_output(i);
    }
    char* message = backward(own, new at::Tensor(std::move(gradients[0])), wanted.get(), places.data(), count);
    for (size_t i = 0; i < count; ++i) {
      if (places[i] != nullptr) {
        results[i] = std::move(*places[i]);
        delete places[i];
      }
    }
    if (message != nullptr) {
      std::string text(message);
      free(message);
      TORCH_CHECK(false, label, ": ", text);
    }
    return results;
  }

  void release_variables() override {
    if (void* own = take()) {
      drop(own);
    }
  }

 private:
  void* take() {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(context, nullptr);
  }

  std::string label;
  void* context;
  Backward backward;
  Drop drop;
};

} // namespace

extern "C" bool dit_torch_grad_is_enabled() {
  return at::GradMode::is_enabled();
}

// Makes `output`, which nothing else depends on yet, depend on `inputs`. Takes over `context` in every case.
extern "C" char* dit_torch_attach(
    const char* name,
    at::Tensor* output,
    at::Tensor* const* inputs,
    size_t count,
    void* context,
    Backward backward,
    Drop drop) {
  return guarded([&] {
    // From here on the node owns the context.
    auto own = std::unique_ptr<RustNode>(new RustNode(name, context, backward, drop));
    std::shared_ptr<RustNode> node(own.release(), torch::autograd::deleteNode);
    variable_list list;
    for (size_t i = 0; i < count; ++i) {
      list.push_back(*inputs[i]);
    }
    node->set_next_edges(torch::autograd::collect_next_edges(list));
    torch::autograd::set_history(*output, node);
  });
}

// Adds to the leaves' gradients those of `outputs`, whose own are `gradients`.
extern "C" char* dit_torch_backward(at::Tensor* const* outputs, at::Tensor* const* gradients, size_t count) {
  return guarded([&] {
    variable_list roots, given;
    for (size_t i = 0; i < count; ++i) {
      roots.push_back(*outputs[i]);
      given.push_back(*gradients[i]);
    }
    torch::autograd::backward(roots, given);
  });
}

extern "C" char* dit_torch_forget_gradient(at::Tensor* tensor) {
  return guarded([&] {
    if (tensor->defined()) {
      tensor->mutable_grad().reset();
    }
  });
}
