// Engines in the machine's own TensorRT, driven directly: what a Jetson has.
#pragma once

#include <memory>

#include "engine/engines.h"
#include "engine/tensor.h"
#include "provider/built.h"
#include "provider/driver.h"
#include "release/manifest.h"

namespace le {

class TrtEngine;

class TrtEngines final : public Engines {
 public:
  // Throws LE_ENGINE, LE_NO_PROVIDER, or what require_gpu throws.
  TrtEngines(const Manifest &manifest, const BuiltEngines &built);
  ~TrtEngines() override;
  EnginesInfo info() const override;
  std::unique_ptr<Session> session() const override;

 private:
  Sizes sizes_;
  Gpu gpu_;
  std::unique_ptr<TrtEngine> refiner_, planner_;  // no planner where the policy has none
};

}  // namespace le
