// manifest.json: what a release says it is, within bounds.
#pragma once

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "engine/tensor.h"
#include "release/sha256.h"

namespace le {

constexpr const char *kCpuProvider = "CPUExecutionProvider";
constexpr const char *kTokenizerMember = "tokenizer.json";
constexpr const char *kOnnxRuntimeMember = "lib/libonnxruntime.so";

struct Member {
  const char *name;  // one of the fixed set, never text of the file
  Digest sha256;
  uint64_t size_bytes;
};

// One number of the state or of an action.
struct Dimension {
  std::string name, unit, kind;  // a number of the state has no kind
};

struct ActionLimit {
  bool delta;  // holds at zero; the other kinds keep the last command
  bool fault;  // leaving the limits is a fault; else the action is clamped
  float lower, upper;
  float max_step_change;   // of the command from one step to the next; infinite: no limit
  float max_acceleration;  // of that change from one step to the next; infinite: no limit
  float max_jerk = std::numeric_limits<float>::infinity();  // of that one; infinite: no limit
  int32_t measured_by = -1;                                 // number of the state; -1: by none
};

using SessionOptions = std::vector<std::pair<std::string, std::string>>;

struct ProviderRule;

// Of an engine that a compiler made: `version` of it, as in 1.7.1.116.
struct CompiledFacts {
  std::string version, compute_capability;
};

// The file that is loaded for one graph, and what runs it.
struct EngineFacts {
  const char *member;            // of the fixed set
  const ProviderRule *provider;  // nullptr: ONNX Runtime's own code for the CPU
  SessionOptions options;
  bool compiled;
  CompiledFacts facts;  // where it is compiled
};

// What the engines ask of a GPU; an empty text asks for nothing.
struct DeviceNeeds {
  std::string compute_capability, driver, cuda;
  uint64_t memory_bytes;
};

struct Manifest {
  Digest sha256;  // of its own bytes: it names the release
  std::string name, target, recipe, onnxruntime_version;
  Sizes sizes;
  double control_hz;
  std::string verdict;  // of parity
  bool random_weights;
  uint64_t security_epoch;
  std::vector<std::string> cameras;
  std::vector<Dimension> state, actions;
  std::vector<ActionLimit> limits;
  EngineFacts planner, refiner;  // as parse_manifest has them
  DeviceNeeds device;
  std::string provision_provider;  // of engines that the robot is to build; empty: of none
  std::vector<Member> members;
};

// Throws LE_NO_PROVIDER where the release does not hold the provider's files; `engine` is what
// needs them.
void require_files(const ProviderRule &provider, const std::vector<Member> &members,
                   const char *engine);

// The architecture that this library was built for.
const char *own_arch();

// Whatever Python's parse_manifest takes, and nothing else. Throws LE_MALFORMED, or LE_INCOMPATIBLE
// for another schema.
Manifest read_manifest(const char *data, size_t size);

// Of it, what this library runs. Throws LE_ABI_MISMATCH, LE_WRONG_ARCHITECTURE, LE_NO_PROVIDER,
// LE_INCOMPATIBLE, or what read_manifest throws.
Manifest parse_manifest(const char *data, size_t size);

}  // namespace le
