// The two engines of a release in ONNX Runtime.
#pragma once

#include <memory>
#include <optional>

#include "engine/engine.h"
#include "engine/engines.h"
#include "engine/ort.h"
#include "provider/built.h"
#include "provider/driver.h"
#include "provider/plugin.h"
#include "release/manifest.h"
#include "release/release.h"

namespace le {

class OrtEngines final : public Engines {
 public:
  // Throws LE_ENGINE, LE_INCOMPATIBLE, or what require_gpu, checked_engine_header,
  // register_provider and require_compatible throw, in that order.
  // `built`: engines of this machine's own, to run in the place of the release's; or nullptr.
  // `cache_dir`: see le_open; nullptr for none.
  OrtEngines(const Release &release, const BuiltEngines *built, uint32_t threads,
             const char *cache_dir);
  std::unique_ptr<Session> session() const override;
  EnginesInfo info() const override;

 private:
  Engine load(const Release &release, OptionFor which, Signature signature, uint32_t threads,
              const char *cache_dir);

  // The file of one engine, and how it is run.
  struct Source {
    EngineFacts facts;
    const std::vector<uint8_t> *file;
    uint32_t status;  // LE_ENGINE_...
  };
  static std::vector<uint8_t> header_of(const Source &source);
  static Source source(const Release &release, const BuiltEngines *built, OptionFor which);

  Sizes sizes_;
  Source planner_source_, refiner_source_;                // used while this is made
  std::optional<Gpu> gpu_;                                // nullopt where the engines run on none
  std::vector<uint8_t> planner_header_, refiner_header_;  // of compiled engines
  Ort ort_;
  OrtHandle<OrtEnv> env_;
  Engine refiner_;
  std::optional<Engine> planner_;  // where the policy has one
};

// Builds the engines that a release leaves to this machine into a folder, and marks them as not
// proven yet. Throws what OrtEngines throws, or LE_INVALID_ARGUMENT.
void build_engines(const Release &release, const char *folder, uint32_t threads);

}  // namespace le
