// The two engines of a release in ONNX Runtime.
#pragma once

#include <memory>
#include <optional>

#include "engine/engine.h"
#include "engine/engines.h"
#include "engine/ort.h"
#include "provider/driver.h"
#include "release/manifest.h"
#include "release/release.h"

namespace le {

class OrtEngines final : public Engines {
 public:
  // Throws LE_ENGINE, LE_INCOMPATIBLE, or what require_gpu, checked_engine_header,
  // register_provider and require_compatible throw, in that order.
  OrtEngines(const Release &release, uint32_t threads);
  std::unique_ptr<Session> session() const override;
  EnginesInfo info() const override;

 private:
  Engine load(const Release &release, OptionFor which, const EngineFacts &facts,
              const std::vector<uint8_t> &file, Signature signature, uint32_t threads);

  Sizes sizes_;
  EngineInfo planner_info_, refiner_info_;
  std::optional<Gpu> gpu_;                                // nullopt where the engines run on none
  std::vector<uint8_t> planner_header_, refiner_header_;  // of compiled engines
  Ort ort_;
  OrtHandle<OrtEnv> env_;
  Engine refiner_;
  std::optional<Engine> planner_;  // where the policy has one
};

}  // namespace le
