// The two engines of a release in ONNX Runtime.
#pragma once

#include <memory>
#include <optional>

#include "engine/engine.h"
#include "engine/engines.h"
#include "engine/ort.h"
#include "release/manifest.h"
#include "release/release.h"

namespace le {

class OrtEngines final : public Engines {
 public:
  // Throws LE_ENGINE or LE_INCOMPATIBLE.
  OrtEngines(const Release &release, uint32_t threads);
  std::unique_ptr<Session> session() const override;

 private:
  Sizes sizes_;
  Ort ort_;
  OrtHandle<OrtEnv> env_;
  Engine refiner_;
  std::optional<Engine> planner_;  // where the policy has one
};

}  // namespace le
