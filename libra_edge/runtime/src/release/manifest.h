// manifest.json: what a release says it is, within bounds.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/tensor.h"
#include "release/sha256.h"

namespace le {

constexpr size_t kMostManifestBytes = 1 << 20;

constexpr const char *kPlannerMember = "engines/planner.onnx";
constexpr const char *kRefinerMember = "engines/refiner.onnx";
constexpr const char *kOnnxRuntimeMember = "lib/libonnxruntime.so";

struct Member {
  const char *name;  // one of the fixed set, never text of the file
  Digest sha256;
  uint64_t size_bytes;
};

struct ActionLimit {
  bool delta;  // holds at zero; the other kinds keep the last command
  bool fault;  // leaving the limits is a fault; else the action is clamped
  float lower, upper;
  float max_step_change;   // of the command from one step to the next; infinite: no limit
  float max_acceleration;  // of that change from one step to the next; infinite: no limit
};

using SessionOptions = std::vector<std::pair<std::string, std::string>>;

struct Manifest {
  std::string name, target, recipe, onnxruntime_version;
  Sizes sizes;
  double control_hz;
  std::vector<ActionLimit> limits;
  SessionOptions planner_options, refiner_options;
  std::vector<Member> members;
};

// The architecture that this library was built for.
const char *own_arch();

// Throws LE_MALFORMED, LE_ABI_MISMATCH, LE_WRONG_ARCHITECTURE, LE_NO_PROVIDER or LE_INCOMPATIBLE.
Manifest parse_manifest(const char *data, size_t size);

}  // namespace le
