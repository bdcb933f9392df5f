// A CUDA device for a libtorch without CUDA: its memory is the host's, and its operators are the CPU's, run at once.
//
// It computes nothing that the CPU does not. What it shows is what a GPU would refuse, and where one would be waited for: tensors of the host
// among those of the device are an error, as on a GPU, and operators, and moments at which the host waits for what an operator gives or takes,
// are counted (waiting asked for, as whoever measures time does, is not). The counts are written to the file that STAND_IN_GPU_COUNTS names when
// the process ends.
//
// Any operator takes numbers (tensors without dimensions) of the host here; some of a GPU's do not.
//
// It has CUDA graphs, by the names that libtorch gives its class: what is given while one is recorded is computed to find shapes, and what was
// computed is destroyed at its end, as a GPU would not have computed it. STAND_IN_GPU_GRAPHS=refused has no recording begin,
// STAND_IN_GPU_GRAPHS=wrong has replays give something else.
//
// To be loaded before a program starts (LD_PRELOAD).

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
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

std::atomic<uint64_t> operators{0}, waits{0}, captures{0}, replays{0};

struct WriteCounts {
  ~WriteCounts() {
    const char* path = std::getenv("STAND_IN_GPU_COUNTS");
    if (std::FILE* file = path == nullptr ? nullptr : std::fopen(path, "w")) {
      std::fprintf(
          file,
          "{\"operators\": %llu, \"waits\": %llu, \"captures\": %llu, \"replays\": %llu}\n",
          static_cast<unsigned long long>(operators.load()),
          static_cast<unsigned long long>(waits.load()),
          static_cast<unsigned long long>(captures.load()),
          static_cast<unsigned long long>(replays.load()));
      std::fclose(file);
    }
  }
} write_counts;

// The only device.
const c10::Device DEVICE(c10::kCUDA, 0);

const c10::Stream DEFAULT_STREAM(c10::Stream::DEFAULT, DEVICE);
// Whatever a stream is given is done at once: all that matters is which one it is.
thread_local c10::Stream current_stream = DEFAULT_STREAM;

struct Guard final : c10::impl::NoOpDeviceGuardImpl<c10::kCUDA> {
  c10::Device exchangeDevice(c10::Device) const override {
    return DEVICE;
  }
  c10::Device getDevice() const override {
    return DEVICE;
  }
  c10::Stream getStream(c10::Device) const noexcept override {
    return current_stream;
  }
  c10::Stream getDefaultStream(c10::Device) const override {
    return DEFAULT_STREAM;
  }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override {
    static std::atomic<c10::StreamId> streams{0};
    return c10::Stream(c10::Stream::UNSAFE, DEVICE, ++streams);
  }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override {
    return std::exchange(current_stream, stream);
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

// What a stream was given while it was recorded.
class Recording {
 public:
  // An operator with what it was given, and the tensors that it made; or, without an operator, a copy.
  struct Call {
    std::optional<c10::OperatorHandle> op;
    std::vector<c10::IValue> given;
    std::vector<c10::IValue> made;
  };

  Recording() : stream(current_stream) {}

  // That of this thread, where its current stream is recorded.
  static Recording* current() {
    return of_thread != nullptr && of_thread->stream == current_stream ? of_thread : nullptr;
  }

  void allocated(const at::Tensor& tensor) {
    own.push_back(tensor.storage());
  }

  void add(Call call) {
    calls.push_back(std::move(call));
  }

  // To be called before something is written to.
  void keep(const at::Tensor& tensor) {
    const c10::Storage& storage = tensor.storage();
    const auto is_it = [&](const c10::Storage& other) { return other.is_alias_of(storage); };
    for (const c10::Storage& other : own) {
      if (is_it(other)) {
        return;
      }
    }
    for (const auto& [other, bytes] : before) {
      if (is_it(other)) {
        return;
      }
    }
    const char* start = static_cast<const char*>(storage.data());
    before.emplace_back(storage, std::vector<char>(start, start + storage.nbytes()));
  }

  // As if none of it had been computed.
  void undo() {
    for (const c10::Storage& storage : own) {
      // NaN in every kind.
      if (storage.nbytes() > 0) {
        std::memset(storage.mutable_data(), 0xff, storage.nbytes());
      }
    }
    for (const auto& [storage, bytes] : before) {
      std::memcpy(storage.mutable_data(), bytes.data(), bytes.size());
    }
    before.clear();
  }

  void replay() const;

  static thread_local Recording* of_thread;
  const c10::Stream stream;
  bool is_invalid = false;

 private:
  std::vector<Call> calls;
  // Memory that was allocated meanwhile, and what was in memory that was there before.
  std::vector<c10::Storage> own;
  std::vector<std::pair<c10::Storage, std::vector<char>>> before;
};

thread_local Recording* Recording::of_thread = nullptr;

// What a stream that is recorded refuses, and is no good after.
void refuse_in_recording(bool refused, const std::string& name) {
  Recording* recording = Recording::current();
  if (recording == nullptr) {
    return;
  }
  recording->is_invalid |= refused;
  TORCH_CHECK(!recording->is_invalid, "CUDA error: operation not permitted when stream is capturing (", name, ")");
}

at::Tensor recorded(at::Tensor tensor) {
  if (Recording* recording = Recording::current()) {
    recording->allocated(tensor);
  }
  return tensor;
}

// A copy of the host's on the device.
at::Tensor on_device(const at::Tensor& tensor) {
  if (!tensor.defined() || is_ours(tensor)) {
    return tensor;
  }
  at::Tensor result = recorded(at::detail::empty_strided_generic(
      tensor.sizes(), tensor.strides(), &memory, KEYS, tensor.scalar_type()));
  on_host(result).copy_(tensor);
  return result;
}

void give_size(const at::Tensor& tensor, c10::IntArrayRef size) {
  at::Tensor fresh = recorded(at::detail::empty_generic(size, &memory, KEYS, tensor.scalar_type(), std::nullopt));
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
  return recorded(at::detail::empty_generic(size, &memory, KEYS, at::dtype_or_default(dtype), format));
}

at::Tensor empty_strided(
    c10::IntArrayRef size,
    c10::IntArrayRef stride,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>,
    std::optional<at::Device>,
    std::optional<bool>) {
  return recorded(at::detail::empty_strided_generic(size, stride, &memory, KEYS, at::dtype_or_default(dtype)));
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
  refuse_in_recording(is_ours(self) != is_ours(source), "copy_");
  if (Recording* recording = Recording::current()) {
    recording->keep(self);
    recording->add({std::nullopt, {self, source}, {}});
  }
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

// What is wrong, or takes time, with what an operator was given.
struct Seen {
  bool host = false, device = false, host_index = false;

  void see(const at::Tensor& tensor, bool in_list) {
    device |= is_ours(tensor);
    host |= tensor.defined() && !is_ours(tensor) && (in_list || tensor.dim() > 0);
  }
};

// The operator of the CPU's on the same memory; its results are the stack's.
Seen compute(const c10::OperatorHandle& op, const std::vector<c10::IValue>& given, torch::jit::Stack& stack) {
  const auto& arguments = op.schema().arguments();
  Seen seen;
  // Written to though they hold nothing yet: what the operator makes of them replaces them.
  std::vector<std::pair<at::Tensor, at::Tensor>> grown;
  for (size_t i = 0; i < given.size(); ++i) {
    c10::IValue value = given[i];
    const auto* alias = arguments[i].alias_info();
    if (value.isTensor()) {
      at::Tensor tensor = value.toTensor();
      seen.see(tensor, false);
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
        seen.see(tensor, true);
        tensors.push_back(on_host(tensor));
      }
      value = tensors;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> tensors;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
        // Indices may be the host's, and are copied then; those that are true or false are counted.
        if (tensor.has_value() && tensor->defined()) {
          seen.host_index |= !is_ours(*tensor) || tensor->scalar_type() == at::kBool;
        }
        tensors.push_back(tensor.has_value() ? std::optional<at::Tensor>(on_host(*tensor)) : std::nullopt);
      }
      value = tensors;
    } else if (value.isDevice()) {
      value = at::Device(at::kCPU);
    }
    stack.push_back(std::move(value));
  }
  TORCH_CHECK(
      !seen.device || !seen.host,
      "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (",
      op.schema().name(),
      ")");
  refuse_in_recording(seen.host_index, op.schema().name());
  op.callBoxed(stack);
  for (auto& [tensor, fresh] : grown) {
    give_size(tensor, fresh.sizes());
    on_host(tensor).copy_(fresh);
  }
  return seen;
}

// Has the recording know what an operator is about to write to.
void keep_written(Recording& recording, const c10::FunctionSchema& schema, const std::vector<c10::IValue>& given) {
  for (size_t i = 0; i < given.size(); ++i) {
    const auto* alias = schema.arguments()[i].alias_info();
    if (alias == nullptr || !alias->isWrite()) {
      continue;
    }
    if (given[i].isTensor() && is_ours(given[i].toTensor())) {
      recording.keep(given[i].toTensor());
    } else if (given[i].isTensorList()) {
      for (const at::Tensor& tensor : given[i].toTensorVector()) {
        recording.keep(tensor);
      }
    }
  }
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const size_t count = schema.arguments().size();
  const std::vector<c10::IValue> given(stack->end() - count, stack->end());
  stack->resize(stack->size() - count);
  operators++;
  const bool is_waited_for = waits_for_the_device(schema.name());
  refuse_in_recording(is_waited_for, schema.name());
  Recording* recording = Recording::current();
  if (recording != nullptr) {
    keep_written(*recording, schema, given);
  }
  torch::jit::Stack results;
  const Seen seen = compute(op, given, results);
  if (is_waited_for) {
    waits++;
  }
  if (seen.host_index) {
    waits++;
  }
  for (size_t i = 0; i < results.size(); ++i) {
    c10::IValue& value = results[i];
    const auto* alias = schema.returns()[i].alias_info();
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
    stack->push_back(value);
  }
  if (recording != nullptr) {
    recording->add({op, given, results});
  }
}

bool graphs_are(const char* what) {
  const char* asked = std::getenv("STAND_IN_GPU_GRAPHS");
  return asked != nullptr && std::strcmp(asked, what) == 0;
}

void write(const at::Tensor& target, const at::Tensor& source) {
  // What an operator gave as it was given is written already.
  if (target.defined() && target.numel() > 0 && target.data_ptr() != source.data_ptr()) {
    on_host(target).copy_(on_host(source));
  }
}

void Recording::replay() const {
  at::Tensor last;
  for (const auto& [op, given, made] : calls) {
    if (!op.has_value()) {
      last = given[0].toTensor();
      write(last, given[1].toTensor());
      continue;
    }
    torch::jit::Stack results;
    compute(*op, given, results);
    for (size_t i = 0; i < made.size(); ++i) {
      if (made[i].isTensor()) {
        last = made[i].toTensor();
        write(last, results[i].toTensor());
      } else if (made[i].isTensorList()) {
        const auto targets = made[i].toTensorVector(), sources = results[i].toTensorVector();
        for (size_t j = 0; j < targets.size(); ++j) {
          write(targets[j], sources[j]);
        }
      }
    }
  }
  if (graphs_are("wrong") && last.defined()) {
    on_host(last).add_(1);
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
  void deviceSynchronize(DeviceIndex) const override {
    refuse_in_recording(true, "synchronize");
  }
};

REGISTER_CUDA_HOOKS(CUDAHooks);

} // namespace at

// Of CUDA's headers.
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed,
};

namespace at::cuda {

using MempoolId_t = std::pair<unsigned long long, unsigned long long>;

MempoolId_t graph_pool_handle() {
  static std::atomic<unsigned long long> pools{0};
  return {0, ++pools};
}

// libtorch's name, and its members'.
struct CUDAGraph {
  explicit CUDAGraph(bool keep_graph);
  ~CUDAGraph();
  void capture_begin(MempoolId_t pool, cudaStreamCaptureMode mode);
  void capture_end();
  MempoolId_t pool();
  void replay();

 private:
  std::unique_ptr<Recording> recording;
  MempoolId_t pool_{0, 0};
  bool has_ended = false;
};

CUDAGraph::CUDAGraph(bool) {}

CUDAGraph::~CUDAGraph() {
  if (recording != nullptr && Recording::of_thread == recording.get()) {
    Recording::of_thread = nullptr;
  }
}

void CUDAGraph::capture_begin(MempoolId_t pool, cudaStreamCaptureMode mode) {
  TORCH_CHECK(!graphs_are("refused"), "the stand-in was asked to refuse");
  TORCH_CHECK(current_stream != DEFAULT_STREAM, "CUDA graphs must be captured on a non-default stream.");
  TORCH_CHECK(Recording::of_thread == nullptr && recording == nullptr, "this thread records already");
  TORCH_CHECK(mode == cudaStreamCaptureModeThreadLocal && pool.second != 0, "of other modes and pools nothing is known here");
  pool_ = pool;
  recording = std::make_unique<Recording>();
  Recording::of_thread = recording.get();
}

void CUDAGraph::capture_end() {
  TORCH_CHECK(
      recording != nullptr && Recording::of_thread == recording.get() && recording->stream == current_stream,
      "Capture must end on the same stream it began on.");
  Recording::of_thread = nullptr;
  recording->undo();
  TORCH_CHECK(
      !recording->is_invalid, "CUDA error: operation failed due to a previous error during capture");
  has_ended = true;
  captures++;
}

MempoolId_t CUDAGraph::pool() {
  TORCH_CHECK(has_ended, "Called CUDAGraph::pool() without a preceding successful capture.");
  return pool_;
}

void CUDAGraph::replay() {
  TORCH_CHECK(has_ended, "Called CUDAGraph::replay without a preceding successful capture.");
  TORCH_CHECK(Recording::of_thread == nullptr, "a graph within a graph");
  operators++;
  replays++;
  recording->replay();
}

} // namespace at::cuda
