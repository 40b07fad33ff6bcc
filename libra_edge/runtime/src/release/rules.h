// What every value of a manifest must be. The rules themselves are in manifest_table.h, which is
// generated from the Python models.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "release/json.h"

namespace le {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

enum class Kind : uint8_t {
  kBoolean,
  kInteger,
  kNumber,
  kWord,
  kPattern,
  kText,
  kList,
  kMap,
  kObject
};

struct Rule {
  Kind kind;
  bool nullable;
  bool above;          // kNumber: above `least`, not equal to it
  double least, most;  // kInteger, kNumber: the value; kText: characters; kList, kMap: items
  // kWord: in kWords; kPattern: in kStretches; kObject: in kKeys; kList, kMap: `first` is the rule
  // of the items, kMap: `count` the rule of the keys.
  uint16_t first, count;
};

// Characters that stand next in a text, as many as there are.
struct Stretch {
  const char *characters;  // of ASCII
  bool others;             // and all beyond ASCII
  uint32_t least, most;
};

struct Key {
  const char *name;
  uint16_t rule;
  const char *unset;  // JSON of the value that is never written; nullptr: the key must be there
};

// The policies whose releases hold a member: those with a planner, an instruction or noise.
enum class Needs : uint8_t { kAll, kPlans, kWords, kNoise };

// One file that a release may hold besides its manifest.
// Whether a release has a member: always, where it likes, or where an engine is loaded from it.
enum class Presence { kRequired, kOptional, kIfLoaded };

struct MemberRule {
  const char *name;
  uint64_t most_bytes;
  Presence presence;
  const char *beside;  // the member that it belongs to; or nullptr
  Needs needs;
  const char *provider;  // that it comes with, all of its files or none; or nullptr
};

// Which engine an option of a provider is for.
enum class OptionFor : uint8_t { kBoth, kPlanner, kRefiner };

struct ProviderOption {
  OptionFor engine;
  const char *key, *value;  // `{threads}` stands for their number, `{cache}` for a folder
};

// A plug-in for ONNX Runtime. Its files are members, in the order in which they are loaded, the
// plug-in itself last.
struct ProviderRule {
  const char *name, *words, *kind;  // as ONNX Runtime spells it, for people, of its engines
  bool compiled;                    // its engines were made of the graphs before
  bool on_gpu;
  uint16_t first_file, file_count;      // in kProviderFiles
  uint16_t first_option, option_count;  // in kProviderOptions
};

// Throws LE_MALFORMED where the manifest breaks a rule.
void check_rules(const Json &manifest);

}  // namespace le
