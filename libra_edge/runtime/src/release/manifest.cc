#include "release/manifest.h"

#include <cmath>
#include <limits>
#include <string_view>

#include "error.h"
#include "libra_edge.h"
#include "release/json.h"

namespace le {
namespace {

constexpr size_t kMostText = 256;
constexpr const char *kCpuProvider = "CPUExecutionProvider";
constexpr uint64_t kMostMemberBytes = (uint64_t{1} << 31) - 1;
constexpr uint64_t kMostImageBytes = uint64_t{1} << 30;
constexpr uint64_t kMostPlanCount = uint64_t{1} << 24;

// Everything a release may hold besides its manifest and signature.
constexpr const char *kMemberNames[] = {
    kPlannerMember,         kRefinerMember,           "golden/actions.npy",
    "golden/images.npy",    "golden/instruction.npy", "golden/intent.npy",
    "golden/margin.npy",    "golden/noise.npy",       "golden/state.npy",
    "include/libra_edge.h", "lib/liblibra_edge.so",   kOnnxRuntimeMember,
    "report.html",          "sbom.cdx.json",          "tokenizer.json"};

const char *member_name(const std::string &name) {
  for (const char *known : kMemberNames) {
    if (name == known) return known;
  }
  fail(LE_MALFORMED, "manifest.json names %s, which is no member of a release.", name.c_str());
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

Digest parse_digest(const Json &json) {
  const std::string text = json.text(64);
  Digest digest;
  for (size_t i = 0; i < digest.size(); ++i) {
    const int high = text.size() == 64 ? hex_digit(text[2 * i]) : -1;
    const int low = text.size() == 64 ? hex_digit(text[2 * i + 1]) : -1;
    if (high < 0 || low < 0) {
      fail(LE_MALFORMED, "%s is not 64 lower-case hex digits.", json.path().c_str());
    }
    digest[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return digest;
}

std::vector<Member> parse_members(const Json &json) {
  std::vector<Member> members;
  json.each_member([&](const std::string &name, const Json &entry) {
    members.push_back({member_name(name), parse_digest(entry.at("sha256")),
                       entry.at("size_bytes").integer(0, kMostMemberBytes)});
  });
  return members;
}

void require_text(const Json &json, const char *expected) {
  const std::string found = json.text(kMostText);
  if (found != expected) {
    fail(LE_INCOMPATIBLE, "%s is %s; this library runs %s.", json.path().c_str(), found.c_str(),
         expected);
  }
}

void require_arch(const Json &json) {
  const std::string found = json.text(kMostText);
  if (found != own_arch()) {
    fail(LE_WRONG_ARCHITECTURE, "The release is compiled for %s; this library runs on %s.",
         found.c_str(), own_arch());
  }
}

void require_provider(const Json &json, const char *member) {
  const std::string found = json.text(kMostText);
  if (found != kCpuProvider) {
    fail(LE_NO_PROVIDER, "%s needs the execution provider %s; this library has only %s.", member,
         found.c_str(), kCpuProvider);
  }
}

Sizes parse_sizes(const Json &policy, const Json &embodiment) {
  const auto size = [](const Json &from, const char *key, uint64_t smallest, uint64_t largest) {
    return static_cast<uint32_t>(from.at(key).integer(smallest, largest));
  };
  const auto length = [&](const char *key, size_t most) {
    return static_cast<uint32_t>(embodiment.at(key).items(1, most).size());
  };
  Sizes s = {};
  s.bins = size(policy, "bins", 2, 1000);
  s.chunk = size(policy, "chunk", 1, 1000);
  s.chunks_per_plan = size(policy, "chunks_per_plan", 1, 1000);
  s.plan_steps = size(policy, "plan_steps", 1, 1000 * 1000);
  s.denoise_steps = size(policy, "denoise_steps", 1, 1000);
  s.instruction_length = size(policy, "instruction_length", 1, 4096);
  s.image_height = size(embodiment, "image_height", 1, 65536);
  s.image_width = size(embodiment, "image_width", 1, 65536);
  s.cameras = length("cameras", 16);
  s.state_dim = length("state", 1024);
  s.action_dim = length("actions", 1024);
  if (s.plan_steps != s.chunk * s.chunks_per_plan) {
    fail(LE_MALFORMED, "manifest.json: plan_steps is %u, not chunk %u times chunks_per_plan %u.",
         s.plan_steps, s.chunk, s.chunks_per_plan);
  }
  if (s.image_bytes() > kMostImageBytes || s.plan_count() > kMostPlanCount) {
    fail(LE_MALFORMED, "manifest.json: the images or the plan are larger than this library takes.");
  }
  return s;
}

// Absent or null means no limit.
float parse_change_limit(const Json &dim, const char *key) {
  if (!dim.has(key)) return std::numeric_limits<float>::infinity();
  const auto value = static_cast<float>(dim.at(key).number());
  if (!std::isfinite(value) || value <= 0) {
    fail(LE_MALFORMED, "%s: %s is not a positive number.", dim.path().c_str(), key);
  }
  return value;
}

bool parse_faults(const Json &dim) {
  if (!dim.has("on_limit")) return false;
  const std::string what = dim.at("on_limit").text(kMostText);
  if (what != "clamp" && what != "fault") {
    fail(LE_MALFORMED, "%s: on_limit %s is unknown.", dim.path().c_str(), what.c_str());
  }
  return what == "fault";
}

std::vector<ActionLimit> parse_limits(const Json &actions) {
  std::vector<ActionLimit> limits;
  for (const Json &dim : actions.items(1, 1024)) {
    const std::string kind = dim.at("kind").text(kMostText);
    if (kind != "absolute" && kind != "delta" && kind != "gripper") {
      fail(LE_MALFORMED, "%s: kind %s is unknown.", dim.path().c_str(), kind.c_str());
    }
    const auto lower = static_cast<float>(dim.at("lower").number());
    const auto upper = static_cast<float>(dim.at("upper").number());
    if (!std::isfinite(lower) || !std::isfinite(upper) || lower >= upper) {
      fail(LE_MALFORMED, "%s: lower is not below upper.", dim.path().c_str());
    }
    limits.push_back({kind == "delta", parse_faults(dim), lower, upper,
                      parse_change_limit(dim, "max_step_change"),
                      parse_change_limit(dim, "max_acceleration")});
  }
  return limits;
}

bool same_spec(const Json &json, const TensorSpec &spec) {
  if (json.at("name").text(kMostText) != spec.name) return false;
  if (json.at("dtype").text(kMostText) != type_name(spec.type)) return false;
  const std::vector<Json> shape = json.at("shape").items(0, 8);
  if (shape.size() != spec.shape.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i].integer(0, UINT32_MAX) != static_cast<uint64_t>(spec.shape[i])) return false;
  }
  return true;
}

void check_specs(const Json &json, const std::vector<TensorSpec> &specs) {
  const std::vector<Json> found = json.items(specs.size(), specs.size());
  for (const TensorSpec &spec : specs) {
    size_t same = 0;
    for (const Json &item : found) same += same_spec(item, spec);
    if (same != 1) {
      fail(LE_MALFORMED, "%s: there is no %s.", json.path().c_str(), describe(spec).c_str());
    }
  }
}

// Options that name a file would let the content of a release choose a path.
void check_option_key(const std::string &key) {
  for (const char *word : {"path", "file", "folder", "directory"}) {
    if (key.find(word) != std::string::npos) {
      fail(LE_INCOMPATIBLE, "The session option %s is not allowed in a release.", key.c_str());
    }
  }
}

SessionOptions parse_engine(const Json &engine, const char *member, const Signature &signature) {
  require_text(engine.at("kind"), "onnxruntime");
  require_provider(engine.at("provider"), member);
  require_text(engine.at("member"), member);
  check_specs(engine.at("inputs"), signature.inputs);
  check_specs(engine.at("outputs"), signature.outputs);
  SessionOptions options;
  engine.at("session_options").each_member([&](const std::string &key, const Json &value) {
    check_option_key(key);
    options.emplace_back(key, value.text(1024));
  });
  return options;
}

void check_compatibility(const Json &root) {
  const uint64_t schema = root.at("schema_version").integer(0, UINT32_MAX);
  if (schema != 1) {
    fail(LE_INCOMPATIBLE, "The release has manifest schema %llu; this library reads schema 1.",
         static_cast<unsigned long long>(schema));
  }
  const Json runtime = root.at("runtime");
  const uint64_t abi = runtime.at("abi_version").integer(0, UINT32_MAX);
  if (abi != LE_ABI_VERSION) {
    fail(LE_ABI_MISMATCH, "The release is made for ABI version %llu; this library has version %u.",
         static_cast<unsigned long long>(abi), LE_ABI_VERSION);
  }
  require_arch(runtime.at("arch"));
  require_text(root.at("policy").at("type"), "libra_vla");
}

}  // namespace

const char *own_arch() {
#if defined(__x86_64__)
  return "x86_64-linux-gnu";
#elif defined(__aarch64__)
  return "aarch64-linux-gnu";
#else
#error "add the architecture's name here"
#endif
}

Manifest parse_manifest(const char *data, size_t size) {
  const JsonDocument document(data, size);
  const Json root = document.root();
  check_compatibility(root);
  const Json embodiment = root.at("embodiment"), engines = root.at("engines");
  Manifest m = {};
  m.name = root.at("name").text(kMostText);
  m.target = root.at("target").text(kMostText);
  m.recipe = root.at("recipe").text(kMostText);
  m.onnxruntime_version = root.at("runtime").at("onnxruntime_version").text(kMostText);
  m.sizes = parse_sizes(root.at("policy"), embodiment);
  m.control_hz = embodiment.at("control_hz").number();
  if (m.control_hz <= 0) fail(LE_MALFORMED, "manifest.json: control_hz is not positive.");
  m.limits = parse_limits(embodiment.at("actions"));
  m.planner_options =
      parse_engine(engines.at("planner"), kPlannerMember, planner_signature(m.sizes));
  m.refiner_options =
      parse_engine(engines.at("refiner"), kRefinerMember, refiner_signature(m.sizes));
  m.members = parse_members(root.at("members"));
  return m;
}

}  // namespace le
