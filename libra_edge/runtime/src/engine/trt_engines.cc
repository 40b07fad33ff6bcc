#include "engine/trt_engines.h"

#include <dlfcn.h>

#include <cstring>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/library.h"
#include "error.h"
#include "tensorrt/libra_trt.h"

namespace le {
namespace {

constexpr int kWarmUpCalls = 3;

const libra_trt &table_of(const BuiltEngines &built) {
  void *library = load_library(built.library, built.library_sha256, kBuiltLibrary);
  using Table = const libra_trt *(*)(uint32_t);
  const auto entry = reinterpret_cast<Table>(dlsym(library, "libra_trt_table"));
  const libra_trt *table = entry == nullptr ? nullptr : entry(LIBRA_TRT_VERSION);
  if (table == nullptr) {
    fail(LE_NO_PROVIDER, "%s is not of this library's version: build the engines again.",
         kBuiltLibrary);
  }
  return *table;
}

std::vector<void *> buffers_of(Io &io, const std::vector<TensorSpec> &specs, bool plans) {
  const std::pair<const char *, void *> known[] = {
      {"images", io.images.data()},
      {"instruction", io.instruction.data()},
      {"state", io.state.data()},
      {"noise", io.noise.data()},
      {"margin", io.margin.data()},
      {"actions", io.actions.data()},
      {"intent", plans ? static_cast<void *>(io.plan_intent.data()) : io.chunk_intent.data()}};
  std::vector<void *> found;
  for (const TensorSpec &spec : specs) {
    for (const auto &[name, data] : known) {
      if (std::strcmp(name, spec.name) == 0) found.push_back(data);
    }
  }
  return found;
}

}  // namespace

// One engine with its tensors in the GPU's memory and a stream of its own.
class TrtEngine {
 public:
  TrtEngine(const libra_trt &table, const char *name, const std::vector<uint8_t> &content,
            Signature signature, bool highest)
      : table_(table), name_(name), signature_(std::move(signature)), stream_(highest) {
    char error[400] = "";
    if (table.open(content.data(), content.size(), &engine_, error, sizeof error) != 0) {
      fail(LE_ENGINE, "%s: %s.", name, error);
    }
    check_signature();
    bind(signature_.inputs);
    bind(signature_.outputs);
    std::vector<std::vector<uint8_t>> zeros;
    std::vector<void *> inputs, outputs;
    for (const TensorSpec &spec : signature_.inputs) {
      inputs.push_back(zeros.emplace_back(spec.bytes()).data());
    }
    for (const TensorSpec &spec : signature_.outputs) {
      outputs.push_back(zeros.emplace_back(spec.bytes()).data());
    }
    for (int i = 0; i < kWarmUpCalls; ++i) run(inputs, outputs);
  }
  ~TrtEngine() {
    if (engine_ != nullptr) table_.close(engine_);
  }
  TrtEngine(const TrtEngine &) = delete;
  TrtEngine &operator=(const TrtEngine &) = delete;

  const Signature &signature() const { return signature_; }

  void run(const std::vector<void *> &inputs, const std::vector<void *> &outputs) {
    const std::scoped_lock locked(lock_);
    for (size_t i = 0; i < inputs.size(); ++i) {
      stream_.copy_in(memory_[i], inputs[i], signature_.inputs[i].bytes());
    }
    char error[400] = "";
    if (table_.enqueue(engine_, stream_.get(), error, sizeof error) != 0) {
      fail(LE_ENGINE, "%s: %s.", name_, error);
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      stream_.copy_out(outputs[i], memory_[inputs.size() + i], signature_.outputs[i].bytes());
    }
    stream_.wait(name_);
  }

 private:
  void check_signature() const {
    const size_t wanted = signature_.inputs.size() + signature_.outputs.size();
    const int32_t count = table_.tensor_count(engine_);
    if (count < 0 || static_cast<size_t>(count) != wanted) {
      fail(LE_ENGINE, "%s: the engine has %d tensors; %zu are expected.", name_, count, wanted);
    }
    for (int32_t i = 0; i < count; ++i) {
      libra_trt_tensor found = {};
      if (table_.tensor(engine_, i, &found) != 0) {
        fail(LE_ENGINE, "%s: TensorRT does not describe tensor %d.", name_, i);
      }
      check(found);
    }
  }

  void check(const libra_trt_tensor &found) const {
    const auto &specs = found.is_input != 0 ? signature_.inputs : signature_.outputs;
    const TensorSpec here = {found.name, static_cast<ElementType>(found.type),
                             std::vector<int64_t>(found.shape, found.shape + found.rank)};
    for (const TensorSpec &spec : specs) {
      if (std::strcmp(spec.name, found.name) != 0) continue;
      if (spec.type == here.type && spec.shape == here.shape) return;
      fail(LE_ENGINE, "%s: expected %s, the engine has %s.", name_, describe(spec).c_str(),
           describe(here).c_str());
    }
    fail(LE_ENGINE, "%s: %s is unknown.", name_, found.name);
  }

  void bind(const std::vector<TensorSpec> &specs) {
    for (const TensorSpec &spec : specs) {
      memory_.push_back(stream_.allocate(spec.bytes()));
      if (table_.bind(engine_, spec.name, memory_.back()) != 0) {
        fail(LE_ENGINE, "%s: TensorRT takes no memory for %s.", name_, spec.name);
      }
    }
  }

  const libra_trt &table_;
  const char *name_;
  Signature signature_;
  Stream stream_;
  void *engine_ = nullptr;
  std::mutex lock_;
  std::vector<void *> memory_;  // of inputs, then of outputs; the stream owns it
};

namespace {

class TrtSession final : public Session {
 public:
  TrtSession(const Sizes &sizes, TrtEngine *planner, TrtEngine &refiner)
      : Session(sizes), planner_(planner), refiner_(refiner) {
    chunk_in_ = buffers_of(io, refiner.signature().inputs, false);
    chunk_out_ = buffers_of(io, refiner.signature().outputs, false);
    if (planner == nullptr) return;
    plan_in_ = buffers_of(io, planner->signature().inputs, true);
    plan_out_ = buffers_of(io, planner->signature().outputs, true);
  }

  void plan() override { planner_->run(plan_in_, plan_out_); }
  void refine() override { refiner_.run(chunk_in_, chunk_out_); }

 private:
  TrtEngine *planner_;
  TrtEngine &refiner_;
  std::vector<void *> plan_in_, plan_out_, chunk_in_, chunk_out_;
};

}  // namespace

TrtEngines::TrtEngines(const Manifest &manifest, const BuiltEngines &built)
    : sizes_(manifest.sizes), gpu_(require_gpu(manifest.device)) {
  const libra_trt &table = table_of(built);
  refiner_ = std::make_unique<TrtEngine>(table, kRefinerEngine, built.refiner,
                                         refiner_signature(sizes_), true);
  if (!sizes_.plans()) return;
  planner_ = std::make_unique<TrtEngine>(table, kPlannerEngine, built.planner,
                                         planner_signature(sizes_), false);
}

TrtEngines::~TrtEngines() = default;

EnginesInfo TrtEngines::info() const {
  const EngineInfo built = {LE_ENGINE_BUILT, kTensorRtProvider, true};
  const EngineInfo none = {LE_ENGINE_NONE, "", false};
  return {planner_ == nullptr ? none : built, built, gpu_.name, gpu_.driver, gpu_.memory_bytes};
}

std::unique_ptr<Session> TrtEngines::session() const {
  return std::make_unique<TrtSession>(sizes_, planner_.get(), *refiner_);
}

}  // namespace le
