#include "engine/ort_engines.h"

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/library.h"
#include "provider/engine_file.h"
#include "provider/plugin.h"

namespace le {
namespace {

constexpr int kLogFatal = 4;  // every error comes back as a status; nothing is to reach stderr

// While one lives, ONNX Runtime sees its telemetry switched off. It looks while its first
// environment is made, and then it stays off; DisableTelemetryEvents comes too late, for by then it
// has begun to look up its host, to write files and to run a thread.
class Silence {
 public:
  Silence() : locked_(lock()) {
    if (const char *value = std::getenv(kVariable)) before_ = value;
    setenv(kVariable, "1", 1);
  }
  ~Silence() {
    if (before_) {
      setenv(kVariable, before_->c_str(), 1);
    } else {
      unsetenv(kVariable);
    }
  }
  Silence(const Silence &) = delete;
  Silence &operator=(const Silence &) = delete;

 private:
  static constexpr const char *kVariable = "ORT_DISABLE_TELEMETRY";
  static std::mutex &lock() {
    static std::mutex mutex;
    return mutex;
  }

  std::scoped_lock<std::mutex> locked_;
  std::optional<std::string> before_;
};

OrtHandle<OrtEnv> create_env(const Ort &ort) {
  const Silence silence;
  OrtEnv *env = nullptr;
  ort.check(ort.create_env(kLogFatal, "libra_edge", &env), "ONNX Runtime");
  return {env, ort.release_env};
}

EngineInfo info_of(const EngineFacts &engine) {
  if (engine.member == nullptr) return {LE_ENGINE_NONE, ""};
  return {engine.compiled ? LE_ENGINE_COMPILED : LE_ENGINE_GRAPH,
          engine.provider == nullptr ? kCpuProvider : engine.provider->name};
}

bool is_on_gpu(const EngineFacts &engine) {
  return engine.provider != nullptr && engine.provider->on_gpu;
}

std::optional<Gpu> find_gpu(const Manifest &manifest) {
  if (!is_on_gpu(manifest.planner) && !is_on_gpu(manifest.refiner)) return std::nullopt;
  return require_gpu(manifest.device);
}

std::vector<uint8_t> header_of(const EngineFacts &engine, const std::vector<uint8_t> &file) {
  if (!engine.compiled) return {};
  return checked_engine_header(engine.member, file, engine.facts);
}

std::vector<void *> refiner_inputs(Io &io, const Signature &signature) {
  const std::pair<const char *, void *> buffers[] = {{"images", io.images.data()},
                                                     {"instruction", io.instruction.data()},
                                                     {"state", io.state.data()},
                                                     {"intent", io.chunk_intent.data()},
                                                     {"noise", io.noise.data()}};
  std::vector<void *> found;
  for (const TensorSpec &spec : signature.inputs) {
    for (const auto &[name, data] : buffers) {
      if (std::strcmp(name, spec.name) == 0) found.push_back(data);
    }
  }
  return found;
}

class OrtSessions final : public Session {
 public:
  // `planner`: nullptr where the policy has none.
  OrtSessions(const Sizes &sizes, const Engine *planner, const Engine &refiner)
      : Session(sizes),
        planner_(planner),
        refiner_(refiner),
        chunk_binding_(
            refiner.bind(refiner_inputs(io, refiner_signature(sizes)), {io.actions.data()})) {
    if (planner == nullptr) return;
    plan_binding_ = planner->bind({io.images.data(), io.instruction.data(), io.state.data()},
                                  {io.plan_intent.data(), io.margin.data()});
  }

  void plan() override { planner_->run(plan_binding_); }
  void refine() override { refiner_.run(chunk_binding_); }

 private:
  const Engine *planner_;
  const Engine &refiner_;
  Binding plan_binding_, chunk_binding_;
};

}  // namespace

OrtEngines::OrtEngines(const Release &release, uint32_t threads)
    : sizes_(release.manifest.sizes),
      planner_info_(info_of(release.manifest.planner)),
      refiner_info_(info_of(release.manifest.refiner)),
      gpu_(find_gpu(release.manifest)),
      planner_header_(header_of(release.manifest.planner, release.planner)),
      refiner_header_(header_of(release.manifest.refiner, release.refiner)),
      ort_(load_library(release.onnxruntime, release.onnxruntime_sha256),
           release.manifest.onnxruntime_version),
      env_(create_env(ort_)),
      refiner_(load(release, OptionFor::kRefiner, release.manifest.refiner, release.refiner,
                    refiner_signature(sizes_), threads)) {
  if (!sizes_.plans()) return;
  planner_.emplace(load(release, OptionFor::kPlanner, release.manifest.planner, release.planner,
                        planner_signature(sizes_), threads));
}

Engine OrtEngines::load(const Release &release, OptionFor which, const EngineFacts &facts,
                        const std::vector<uint8_t> &file, Signature signature, uint32_t threads) {
  Placement placement;
  if (facts.provider != nullptr) {
    const ProviderRule &provider = *facts.provider;
    placement.device = register_provider(ort_, env_.get(), provider, release);
    placement.options = provider_options(provider, which, threads);
    const auto &header = which == OptionFor::kPlanner ? planner_header_ : refiner_header_;
    if (!header.empty()) {
      require_compatible(ort_, placement.device, provider, facts.member, header);
    }
    if (provider.on_gpu) {
      // The refiner's blocks go before the planner's: it is what the robot waits for.
      void *stream = create_stream(which == OptionFor::kRefiner);
      placement.options.emplace_back("has_user_compute_stream", "1");
      placement.options.emplace_back("user_compute_stream",
                                     std::to_string(reinterpret_cast<uintptr_t>(stream)));
    }
  }
  return {ort_, *env_, facts.member, file, std::move(signature), facts.options, threads, placement};
}

EnginesInfo OrtEngines::info() const {
  EnginesInfo info = {planner_info_, refiner_info_, "", "", 0};
  if (gpu_) {
    info.device = gpu_->name;
    info.driver = gpu_->driver;
    info.device_memory_bytes = gpu_->memory_bytes;
  }
  return info;
}

std::unique_ptr<Session> OrtEngines::session() const {
  return std::make_unique<OrtSessions>(sizes_, planner_ ? &*planner_ : nullptr, refiner_);
}

}  // namespace le
