// A CUDA device for a libtorch without CUDA: its memory is the host's, and its operators are the CPU's, run at once.
//
// It computes nothing that the CPU does not. What it shows is what a GPU would refuse, and where one would be waited for: tensors of the host
// among those of the device are an error, as on a GPU, and operators, and moments at which the host waits for what an operator gives or takes,
// are counted (waiting asked for, as whoever measures time does, is not). The counts are written to the file that STAND_IN_GPU_COUNTS names when
// the process ends.
//
// Any operator takes numbers (tensors without dimensions) of the host here; some of a GPU's do not.
//
// To be loaded before a program starts (LD_PRELOAD).

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

namespace {

std::atomic<uint64_t> operators{0}, waits{0};

struct WriteCounts {
  ~WriteCounts() {
    const char* path = std::getenv("STAND_IN_GPU_COUNTS");
    if (std::FILE* file = path == nullptr ? nullptr : std::fopen(path, "w")) {
      std::fprintf(
          file,
          "{\"operators\": %llu, \"waits\": %llu}\n",
          static_cast<unsigned long long>(operators.load()),
          static_cast<unsigned long long>(waits.load()));
      std::fclose(file);
    }
  }
} write_counts;

// The only device.
const c10::Device DEVICE(c10::kCUDA, 0);

struct Guard final : c10::impl::NoOpDeviceGuardImpl<c10::kCUDA> {
  c10::Device exchangeDevice(c10::Device) const override {
    return DEVICE;
  }
  c10::Device getDevice() const override {
    return DEVICE;
  }
  c10::Stream getStream(c10::Device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, DEVICE);
  }
  c10::Stream exchangeStream(c10::Stream) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, DEVICE);
  }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override {
    return true;
  }
};

C10_REGISTER_GUARD_IMPL(CUDA, Guard);

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = bytes == 0 ? nullptr : std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    return {memory, memory, &std::free, DEVICE};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &std::free;
  }
  void copy_data(void* target, const void* source, size_t bytes) const override {
    default_copy_data(target, source, bytes);
  }
} memory;

// Memory of the host that a GPU reads and writes by itself.
struct Pinned final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* place = bytes == 0 ? nullptr : std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (place != nullptr) {
      std::lock_guard<std::mutex> lock(mutex());
      places().emplace(place, bytes);
    }
    return {place, place, &forget, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &forget;
  }
  void copy_data(void* target, const void* source, size_t bytes) const override {
    default_copy_data(target, source, bytes);
  }

  static bool has(const void* place) {
    std::lock_guard<std::mutex> lock(mutex());
    auto after = places().upper_bound(place);
    if (after == places().begin()) {
      return false;
    }
    const auto& [start, bytes] = *std::prev(after);
    return place < static_cast<const char*>(start) + bytes;
  }

 private:
  static void forget(void* place) {
    {
      std::lock_guard<std::mutex> lock(mutex());
      places().erase(place);
    }
    std::free(place);
  }
  static std::mutex& mutex() {
    static auto* mutex = new std::mutex;
    return *mutex;
  }
  static std::map<const void*, size_t>& places() {
    static auto* places = new std::map<const void*, size_t>;
    return *places;
  }
} pinned;

const c10::DispatchKeySet KEYS(c10::DispatchKey::CUDA);

bool is_ours(const at::Tensor& tensor) {
  return tensor.defined() && tensor.is_cuda();
}

// A tensor of the host in the same memory.
at::Tensor on_host(const at::Tensor& tensor) {
  if (!is_ours(tensor)) {
    return tensor;
  }
  auto options = at::TensorOptions().dtype(tensor.dtype()).device(at::kCPU);
  return at::from_blob(tensor.mutable_data_ptr(), tensor.sizes(), tensor.strides(), options);
}

// A copy of the host's on the device.
at::Tensor on_device(const at::Tensor& tensor) {
  if (!tensor.defined() || is_ours(tensor)) {
    return tensor;
  }
  at::Tensor result = at::detail::empty_strided_generic(
      tensor.sizes(), tensor.strides(), &memory, KEYS, tensor.scalar_type());
  on_host(result).copy_(tensor);
  return result;
}

void give_size(const at::Tensor& tensor, c10::IntArrayRef size) {
  at::Tensor fresh = at::detail::empty_generic(size, &memory, KEYS, tensor.scalar_type(), std::nullopt);
  tensor.unsafeGetTensorImpl()->set_storage_keep_dtype(fresh.storage());
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(size);
}

at::Tensor empty(
    c10::IntArrayRef size,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>,
    std::optional<at::Device>,
    std::optional<bool>,
    std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, KEYS, at::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(
    c10::IntArrayRef size,
    c10::IntArrayRef stride,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>,
    std::optional<at::Device>,
    std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &memory, KEYS, at::dtype_or_default(dtype));
}

const at::Tensor& resize_(const at::Tensor& self, c10::IntArrayRef size, std::optional<at::MemoryFormat>) {
  if (self.sizes() != size) {
    give_size(self, size);
  }
  return self;
}

at::Tensor& copy_(at::Tensor& self, const at::Tensor& source, bool non_blocking) {
  operators++;
  const at::Tensor& host = is_ours(self) ? source : self;
  if (is_ours(self) != is_ours(source) && !(non_blocking && (host.numel() == 0 || Pinned::has(host.data_ptr())))) {
    waits++;
  }
  on_host(self).copy_(on_host(source));
  return self;
}

bool waits_for_the_device(const std::string& name) {
  return name == "aten::_local_scalar_dense" || name == "aten::equal" || name == "aten::nonzero" ||
      name == "aten::masked_select";
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const std::string& name = op.schema().name();
  const size_t count = schema.arguments().size();
  const size_t base = stack->size() - count;
  const std::vector<c10::IValue> given(stack->begin() + base, stack->end());
  operators++;
  if (waits_for_the_device(name)) {
    waits++;
  }
  bool any_host = false, any_device = false, any_host_index = false;
  auto see = [&](const at::Tensor& tensor, bool in_list) {
    any_device |= is_ours(tensor);
    any_host |= tensor.defined() && !is_ours(tensor) && (in_list || tensor.dim() > 0);
  };
  // Written to though they hold nothing yet: what the operator makes of them replaces them.
  std::vector<std::pair<at::Tensor, at::Tensor>> grown;
  for (size_t i = 0; i < count; ++i) {
    c10::IValue& value = (*stack)[base + i];
    const auto* alias = schema.arguments()[i].alias_info();
    if (value.isTensor()) {
      at::Tensor tensor = value.toTensor();
      see(tensor, false);
      if (alias != nullptr && alias->isWrite() && is_ours(tensor) && tensor.numel() == 0) {
        at::Tensor fresh = at::empty({0}, at::TensorOptions().dtype(tensor.dtype()));
        grown.emplace_back(tensor, fresh);
        value = fresh;
      } else {
        value = on_host(tensor);
      }
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> tensors;
      for (const at::Tensor& tensor : value.toTensorVector()) {
        see(tensor, true);
        tensors.push_back(on_host(tensor));
      }
      value = tensors;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> tensors;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
        // Indices may be the host's, and are copied then; those that are true or false are counted.
        if (tensor.has_value() && tensor->defined()) {
          any_host_index |= !is_ours(*tensor) || tensor->scalar_type() == at::kBool;
        }
        tensors.push_back(tensor.has_value() ? std::optional<at::Tensor>(on_host(*tensor)) : std::nullopt);
      }
      value = tensors;
    } else if (value.isDevice()) {
      value = at::Device(at::kCPU);
    }
  }
  TORCH_CHECK(
      !any_device || !any_host,
      "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (",
      name,
      ")");
  if (any_host_index) {
    waits++;
  }
  op.callBoxed(stack);
  for (auto& [tensor, fresh] : grown) {
    give_size(tensor, fresh.sizes());
    on_host(tensor).copy_(fresh);
  }
  const auto& returns = schema.returns();
  const size_t first = stack->size() - returns.size();
  for (size_t i = 0; i < returns.size(); ++i) {
    c10::IValue& value = (*stack)[first + i];
    const auto* alias = returns[i].alias_info();
    if (alias != nullptr && alias->isWrite()) {
      for (size_t j = 0; j < count; ++j) {
        const auto* other = schema.arguments()[j].alias_info();
        if (other != nullptr && *other == *alias) {
          value = given[j];
          break;
        }
      }
    } else if (value.isTensor()) {
      value = on_device(value.toTensor());
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> tensors;
      for (const at::Tensor& tensor : value.toTensorVector()) {
        tensors.push_back(on_device(tensor));
      }
      value = tensors;
    }
  }
}

int64_t plain_attention(
    const at::Tensor&,
    const at::Tensor&,
    const at::Tensor&,
    const std::optional<at::Tensor>&,
    double,
    bool,
    std::optional<double>,
    bool) {
  return 0;
}

const at::native::RegisterCUDADispatch<at::native::_fused_sdp_choice_stub_DECLARE_DISPATCH_type>
    attention(at::native::_fused_sdp_choice_stub, &plain_attention);

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", TORCH_FN(empty));
  library.impl("empty_strided", TORCH_FN(empty_strided));
  library.impl("resize_", TORCH_FN(resize_));
  library.impl("copy_", TORCH_FN(copy_));
  library.impl("view", TORCH_FN(at::native::view));
  library.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  library.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
}

} // namespace

namespace at {

struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override {
    return true;
  }
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return true;
  }
  bool hasPrimaryContext(DeviceIndex) const override {
    return true;
  }
  DeviceIndex deviceCount() const override {
    return 1;
  }
  int getNumGPUs() const override {
    return 1;
  }
  DeviceIndex current_device() const override {
    return 0;
  }
  DeviceIndex getCurrentDevice() const override {
    return 0;
  }
  bool isPinnedPtr(const void* place) const override {
    return Pinned::has(place);
  }
  Allocator* getPinnedMemoryAllocator() const override {
    return &pinned;
  }
  void deviceSynchronize(DeviceIndex) const override {}
};

REGISTER_CUDA_HOOKS(CUDAHooks);

} // namespace at
