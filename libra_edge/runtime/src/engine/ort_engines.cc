#include "engine/ort_engines.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/library.h"
#include "error.h"
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

bool is_on_gpu(const EngineFacts &engine) {
  return engine.provider != nullptr && engine.provider->on_gpu;
}

Placement place(const Ort &ort, OrtEnv *env, const Release &release, const ProviderRule &provider,
                OptionFor which, uint32_t threads, const std::string &cache) {
  Placement placement = register_provider(ort, env, provider, release);
  placement.options = provider_options(provider, which, threads, cache);
  return placement;
}

// A folder of the release's and the engine's own; made if it is missing.
std::string cache_of(const char *cache_dir, const Manifest &manifest, OptionFor which) {
  if (cache_dir == nullptr) return {};
  std::string folder = std::string(cache_dir) + "/";
  for (size_t i = 0; i < 8; ++i) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", unsigned{manifest.sha256[i]});
    folder += digits;
  }
  folder += which == OptionFor::kPlanner ? "-planner" : "-refiner";
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    fail(LE_INVALID_ARGUMENT, "cache_dir: %.200s cannot be made: %s.", folder.c_str(),
         std::strerror(errno));
  }
  return folder;
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

std::vector<uint8_t> OrtEngines::header_of(const Source &source) {
  if (!source.facts.compiled) return {};
  return checked_engine_header(source.facts.member, *source.file, source.facts.facts);
}

OrtEngines::Source OrtEngines::source(const Release &release, const BuiltEngines *built,
                                      OptionFor which) {
  const bool plans = which == OptionFor::kPlanner;
  const EngineFacts &facts = plans ? release.manifest.planner : release.manifest.refiner;
  if (facts.member == nullptr) return {{}, nullptr, LE_ENGINE_NONE};
  if (built == nullptr) {
    return {facts, plans ? &release.planner : &release.refiner,
            facts.compiled ? LE_ENGINE_COMPILED : LE_ENGINE_GRAPH};
  }
  EngineFacts here = {};
  here.member = plans ? kBuiltPlanner : kBuiltRefiner;
  here.provider = &provision_provider(release.manifest);
  return {here, plans ? &built->planner : &built->refiner, LE_ENGINE_BUILT};
}

OrtEngines::OrtEngines(const Release &release, const BuiltEngines *built, uint32_t threads,
                       const char *cache_dir)
    : sizes_(release.manifest.sizes),
      planner_source_(source(release, built, OptionFor::kPlanner)),
      refiner_source_(source(release, built, OptionFor::kRefiner)),
      gpu_(is_on_gpu(planner_source_.facts) || is_on_gpu(refiner_source_.facts)
               ? std::optional(require_gpu(release.manifest.device))
               : std::nullopt),
      planner_header_(header_of(planner_source_)),
      refiner_header_(header_of(refiner_source_)),
      ort_(load_library(release.onnxruntime, release.onnxruntime_sha256, kOnnxRuntimeMember),
           release.manifest.onnxruntime_version),
      env_(create_env(ort_)),
      refiner_(load(release, OptionFor::kRefiner, refiner_signature(sizes_), threads, cache_dir)) {
  if (!sizes_.plans()) return;
  planner_.emplace(
      load(release, OptionFor::kPlanner, planner_signature(sizes_), threads, cache_dir));
}

Engine OrtEngines::load(const Release &release, OptionFor which, Signature signature,
                        uint32_t threads, const char *cache_dir) {
  const bool plans = which == OptionFor::kPlanner;
  const Source &source = plans ? planner_source_ : refiner_source_;
  const EngineFacts &facts = source.facts;
  Placement placement;
  if (facts.provider != nullptr) {
    const std::string cache = cache_of(cache_dir, release.manifest, which);
    placement = place(ort_, env_.get(), release, *facts.provider, which, threads, cache);
    const auto &header = plans ? planner_header_ : refiner_header_;
    if (!header.empty()) {
      require_compatible(ort_, placement.device, *facts.provider, facts.member, header);
    }
  }
  if (is_on_gpu(facts)) {
    // The refiner's blocks go before the planner's: it is what the robot waits for.
    void *stream = create_stream(!plans);
    placement.options.emplace_back("has_user_compute_stream", "1");
    placement.options.emplace_back("user_compute_stream",
                                   std::to_string(reinterpret_cast<uintptr_t>(stream)));
  }
  return {ort_,          *env_,   facts.member, *source.file, std::move(signature),
          facts.options, threads, placement};
}

EnginesInfo OrtEngines::info() const {
  const auto of = [](const Source &source) -> EngineInfo {
    if (source.status == LE_ENGINE_NONE) return {source.status, "", false};
    const ProviderRule *provider = source.facts.provider;
    return {source.status, provider == nullptr ? kCpuProvider : provider->name,
            is_on_gpu(source.facts)};
  };
  EnginesInfo info = {of(planner_source_), of(refiner_source_), "", "", 0};
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

void build_engines(const Release &release, const char *folder, uint32_t threads) {
  const ProviderRule &provider = provision_provider(release.manifest);
  if (provider.on_gpu) require_gpu(release.manifest.device);
  if (is_direct(provider)) return write_mark(folder, release.manifest);
  const Ort ort(load_library(release.onnxruntime, release.onnxruntime_sha256, kOnnxRuntimeMember),
                release.manifest.onnxruntime_version);
  const OrtHandle<OrtEnv> env = create_env(ort);
  const auto build = [&](OptionFor which, const char *name, const std::vector<uint8_t> &graph) {
    const Placement placement = place(ort, env.get(), release, provider, which, threads, "");
    build_engine(ort, *env, name, graph, threads, placement, std::string(folder) + "/" + name);
  };
  if (release.manifest.sizes.plans()) {
    build(OptionFor::kPlanner, kBuiltPlanner, release.planner);
  }
  build(OptionFor::kRefiner, kBuiltRefiner, release.refiner);
  write_mark(folder, release.manifest);
}

}  // namespace le
