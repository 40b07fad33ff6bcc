// The two engines of a release in ONNX Runtime.
#pragma once

#include <memory>

#include "engine.h"
#include "engines.h"
#include "manifest.h"
#include "ort.h"
#include "release.h"

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
  Engine planner_, refiner_;
};

}  // namespace le
