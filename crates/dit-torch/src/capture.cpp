// CUDA graphs: what a GPU is given, recorded, and given again in one launch.
//
// libtorch's class for it, at::cuda::CUDAGraph, is declared in a header that asks for CUDA's, which whoever builds need not have. So its members are
// looked up in the running process by the names that the C++ ABI gives them, in the version that this was written for; all else goes
// through interfaces that are the same for all devices.

#include "crossing.h"

#include <atomic>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#if __has_include(<dlfcn.h>)
#include <dlfcn.h>
#endif

namespace {

using dit_torch::guarded;

// at::cuda::MempoolId_t.
using Pool = std::pair<unsigned long long, unsigned long long>;

// Members of at::cuda::CUDAGraph; each takes the object first.
struct Members {
  void (*construct)(void*, bool keep_graph);
  void (*destroy)(void*);
  void (*begin)(void*, Pool, int mode);
  void (*end)(void*);
  Pool (*pool)(void*);
  void (*replay)(void*);
  // No member.
  Pool (*new_pool)();
};

// cudaStreamCaptureModeThreadLocal: what other threads ask of the GPU meanwhile is theirs.
constexpr int THREAD_LOCAL = 1;

template <typename Function>
bool look_up(const char* name, Function*& function) {
#if __has_include(<dlfcn.h>)
  function = reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
#endif
  return function != nullptr;
}

// Major, minor and patch from the top, a byte each, as libtorch tells its version.
bool is_written_for(uint64_t version) {
  return version >> 48 == (2 << 8 | 11);
}

// Null where there are none, or those of another version.
const Members* members() {
  static const std::optional<Members> found = []() -> std::optional<Members> {
    uint64_t (*version)() = nullptr;
    Members all{};
    const bool there = look_up("aoti_torch_abi_version", version) && is_written_for(version()) &&
        look_up("_ZN2at4cuda9CUDAGraphC1Eb", all.construct) && look_up("_ZN2at4cuda9CUDAGraphD1Ev", all.destroy) &&
        look_up("_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode", all.begin) &&
        look_up("_ZN2at4cuda9CUDAGraph11capture_endEv", all.end) &&
        look_up("_ZN2at4cuda9CUDAGraph4poolEv", all.pool) && look_up("_ZN2at4cuda9CUDAGraph6replayEv", all.replay) &&
        look_up("_ZN2at4cuda17graph_pool_handleEv", all.new_pool);
    return there ? std::optional<Members>(all) : std::nullopt;
  }();
  return found.has_value() ? &*found : nullptr;
}

// A recording could not be begun or ended. libtorch's allocator still asks its object where memory is to come from, and with its generator of
// random numbers takes it to be going on: there are no more in this process.
std::atomic<bool> spoiled{false};

// Where at::cuda::CUDAGraph lives. It takes 104 bytes in libtorch 2.11.
struct Object {
  Object() : place(::operator new(BYTES, ALIGNMENT)) {
    try {
      members()->construct(place, false);
    } catch (...) {
      ::operator delete(place, ALIGNMENT);
      throw;
    }
  }

  ~Object() {
    if (place != nullptr) {
      members()->destroy(place);
      ::operator delete(place, ALIGNMENT);
    }
  }

  Object(Object&& other) noexcept : place(std::exchange(other.place, nullptr)) {}

  // Stays in memory, as it is.
  void abandon() {
    place = nullptr;
    spoiled = true;
  }

  bool has_ended() const {
    try {
      members()->pool(place);
      return true;
    } catch (...) {
      return false;
    }
  }

  static constexpr size_t BYTES = 4096;
  static constexpr std::align_val_t ALIGNMENT{64};
  void* place;
};

// What recordings of one GPU share, so that they take the memory of the largest, not of all: no tensor of one is read after another was
// replayed, as what a replay gives is copied at once.
struct Shared {
  std::optional<c10::Stream> stream;
  Pool pool{0, 0};
  // Graphs that hold the pool. One that nobody holds must not be taken again.
  size_t graphs = 0;
};

// For one thread at a time, which is for the callers to see to.
Shared& shared(c10::DeviceIndex gpu) {
  static auto* all = new std::map<c10::DeviceIndex, Shared>;
  return (*all)[gpu];
}

// While it lives, what this thread gives the GPU goes to a stream of its own.
struct Recording {
  Recording(c10::DeviceIndex gpu, c10::Stream stream) : gpu(gpu), stream(stream) {}

  c10::DeviceIndex gpu;
  c10::StreamGuard stream;
  Object object;
};

struct Graph {
  Graph(Recording& recording, const at::Tensor& output)
      : gpu(recording.gpu), object(std::move(recording.object)), output(output) {
    ++shared(gpu).graphs;
  }

  ~Graph() {
    --shared(gpu).graphs;
  }

  c10::DeviceIndex gpu;
  Object object;
  at::Tensor output;
};

} // namespace

extern "C" bool dit_torch_graphs_are_written_for(uint64_t version) {
  return is_written_for(version);
}

extern "C" bool dit_torch_has_graphs() {
  return members() != nullptr && !spoiled;
}

// `result` is to be ended by this thread.
extern "C" char* dit_torch_begin_recording(int64_t number, Recording** result) {
  return guarded([&] {
    const auto gpu = static_cast<c10::DeviceIndex>(number);
    const c10::Device device(c10::kCUDA, gpu);
    const c10::impl::VirtualGuardImpl streams(c10::kCUDA);
    Shared& common = shared(gpu);
    if (!common.stream.has_value()) {
      common.stream = streams.getStreamFromGlobalPool(device);
    }
    c10::Event before(c10::kCUDA);
    before.record(streams.getStream(device));
    before.block(*common.stream);
    auto recording = std::make_unique<Recording>(gpu, *common.stream);
    if (common.graphs == 0) {
      common.pool = members()->new_pool();
    }
    try {
      members()->begin(recording->object.place, common.pool, THREAD_LOCAL);
    } catch (...) {
      recording->object.abandon();
      throw;
    }
    *result = recording.release();
  });
}

// Ends it in every case, and makes a graph of it where there is an output.
extern "C" char* dit_torch_end_recording(Recording* recording, const at::Tensor* output, Graph** result) {
  return guarded([&] {
    const std::unique_ptr<Recording> own(recording);
    try {
      members()->end(own->object.place);
    } catch (...) {
      if (!own->object.has_ended()) {
        own->object.abandon();
      }
      throw;
    }
    if (output != nullptr) {
      *result = new Graph(*own, *output);
    }
  });
}

// `result` is owned by the caller.
extern "C" char* dit_torch_replay(Graph* graph, at::Tensor** result) {
  return guarded([&] {
    members()->replay(graph->object.place);
    *result = new at::Tensor(graph->output.clone());
  });
}

extern "C" void dit_torch_drop_graph(Graph* graph) {
  delete graph;
}
