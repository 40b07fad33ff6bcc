#include "release/manifest.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "error.h"
#include "libra_edge.h"
#include "release/json.h"
#include "release/manifest_table.h"

namespace le {
namespace {

constexpr const char *kPlainKind = "onnxruntime";

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

Digest parse_digest(const Json &json) {
  const std::string text = json.text();
  Digest digest;
  for (size_t i = 0; i < digest.size(); ++i) {
    digest[i] = static_cast<uint8_t>(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
  }
  return digest;
}

const MemberRule *member_rule(const std::string &name) {
  for (const MemberRule &rule : kMemberRules) {
    if (name == rule.name) return &rule;
  }
  fail(LE_MALFORMED, "manifest.json names %.100s, which is no member of a release.", name.c_str());
}

bool has_member(const std::vector<Member> &members, std::string_view name) {
  return std::any_of(members.begin(), members.end(),
                     [&](const Member &m) { return m.name == name; });
}

std::vector<Member> parse_members(const Json &json) {
  std::vector<Member> members;
  json.each_member([&](const Json &name, const Json &entry) {
    const MemberRule &rule = *member_rule(name.text());
    const uint64_t size = entry.at("size_bytes").integer();
    if (size > rule.most_bytes) {
      fail(LE_MALFORMED, "%s: size_bytes is more than %llu.", entry.path().c_str(),
           static_cast<unsigned long long>(rule.most_bytes));
    }
    members.push_back({rule.name, parse_digest(entry.at("sha256")), size});
  });
  return members;
}

bool needed(Needs needs, const Sizes &sizes) {
  switch (needs) {
    case Needs::kPlans:
      return sizes.plans();
    case Needs::kWords:
      return sizes.instruction_length > 0;
    case Needs::kNoise:
      return sizes.denoise_steps > 0;
    default:
      return true;
  }
}

// Every file that a release must hold, none without the one that it belongs to, and of compiled
// engines just those that are run.
void check_members(const std::vector<Member> &members, const Json &engines, const Sizes &sizes) {
  const std::string planner =
      sizes.plans() ? engines.at("planner").at("member").text() : std::string();
  const std::string refiner = engines.at("refiner").at("member").text();
  for (const MemberRule &rule : kMemberRules) {
    const bool is_there = has_member(members, rule.name);
    const bool is_engine = rule.presence == Presence::kIfLoaded;
    const bool is_of_use = needed(rule.needs, sizes);
    if (!is_there && is_of_use && rule.presence == Presence::kRequired) {
      fail(LE_MALFORMED, "manifest.json: members has no %s.", rule.name);
    }
    if (is_there && !is_of_use) {
      fail(LE_MALFORMED, "manifest.json: %s is of no use to this policy.", rule.name);
    }
    if (is_engine && is_there != (planner == rule.name || refiner == rule.name)) {
      fail(LE_MALFORMED, "manifest.json: %s is not what the engines name.", rule.name);
    }
    if (is_there && rule.beside != nullptr && !has_member(members, rule.beside)) {
      fail(LE_MALFORMED, "manifest.json: %s is there without %s.", rule.name, rule.beside);
    }
  }
}

// Of a provider whose engines are here, or are to be built on the robot, all files or none.
void check_providers(const std::vector<Member> &members, const Json &root) {
  std::vector<std::string> used;
  for (const char *engine : {"planner", "refiner"}) {
    if (!root.at("engines").has(engine)) continue;
    used.push_back(root.at("engines").at(engine).at("provider").text());
  }
  if (root.has("provision")) used.push_back(root.at("provision").at("provider").text());
  for (const MemberRule &rule : kMemberRules) {
    if (rule.provider == nullptr || !has_member(members, rule.name)) continue;
    if (std::find(used.begin(), used.end(), rule.provider) == used.end()) {
      fail(LE_MALFORMED, "manifest.json: %s is of a provider that no engine names.", rule.name);
    }
    for (const MemberRule &other : kMemberRules) {
      const bool same = other.provider != nullptr && std::string(other.provider) == rule.provider;
      if (same && !has_member(members, other.name)) {
        fail(LE_MALFORMED, "manifest.json: %s is there without %s.", rule.name, other.name);
      }
    }
  }
}

void require_arch(const Json &json) {
  const std::string found = json.text();
  if (found != own_arch()) {
    fail(LE_WRONG_ARCHITECTURE, "The release is compiled for %s; this library runs on %s.",
         found.c_str(), own_arch());
  }
}

const ProviderRule *find_provider(const std::string &name, const char *member) {
  if (name == kCpuProvider) return nullptr;
  for (const ProviderRule &rule : kProviderRules) {
    if (name == rule.name) return &rule;
  }
  fail(LE_NO_PROVIDER, "%s needs the execution provider %.100s, which this library does not run.",
       member, name.c_str());
}

std::vector<ImageSize> parse_camera_sizes(const Json &embodiment, const Sizes &s) {
  std::vector<ImageSize> found;
  ImageSize largest = {0, 0}, smallest = {UINT32_MAX, UINT32_MAX};
  for (const Json &item : embodiment.at("camera_sizes").items()) {
    const std::vector<Json> sides = item.items();
    const ImageSize size = {static_cast<uint32_t>(sides[0].integer()),
                            static_cast<uint32_t>(sides[1].integer())};
    largest = {std::max(largest.height, size.height), std::max(largest.width, size.width)};
    smallest = {std::min(smallest.height, size.height), std::min(smallest.width, size.width)};
    found.push_back(size);
  }
  const bool alike = smallest.height == largest.height && smallest.width == largest.width;
  if (found.size() != s.cameras || alike || largest.height != s.image_height ||
      largest.width != s.image_width) {
    fail(LE_MALFORMED, "manifest.json: camera_sizes does not fit the cameras.");
  }
  return found;
}

// What goes together with a planner, and without one.
void check_policy(const Json &policy, const Sizes &s) {
  const bool no_noise = s.denoise_steps == 0;
  if ((policy.at("prediction_type").text() == "none") != no_noise ||
      (policy.at("scheduler").text() == "none") != no_noise) {
    fail(LE_MALFORMED, "manifest.json: denoise_steps, prediction_type and scheduler do not fit.");
  }
  const bool other = policy.has("predicted") || policy.has("observation_steps");
  if (s.bins == 1 || (!s.plans() && s.chunks_per_plan != 1) ||
      (s.plans() && (other || no_noise || s.instruction_length == 0)) ||
      (policy.has("predicted") && s.predicted <= s.chunk)) {
    fail(LE_MALFORMED, "manifest.json: bins and the other sizes of the policy do not fit.");
  }
}

Sizes parse_sizes(const Json &policy, const Json &embodiment) {
  const auto size = [](const Json &from, const char *key) {
    return static_cast<uint32_t>(from.at(key).integer());
  };
  Sizes s = {};
  s.bins = size(policy, "bins");
  s.chunk = size(policy, "chunk");
  s.chunks_per_plan = size(policy, "chunks_per_plan");
  s.plan_steps = size(policy, "plan_steps");
  s.denoise_steps = size(policy, "denoise_steps");
  s.instruction_length = size(policy, "instruction_length");
  s.image_height = size(embodiment, "image_height");
  s.image_width = size(embodiment, "image_width");
  s.cameras = static_cast<uint32_t>(embodiment.at("cameras").items().size());
  s.state_dim = static_cast<uint32_t>(embodiment.at("state").items().size());
  s.action_dim = static_cast<uint32_t>(embodiment.at("actions").items().size());
  s.predicted = policy.has("predicted") ? size(policy, "predicted") : s.chunk;
  s.observation_steps = policy.has("observation_steps") ? size(policy, "observation_steps") : 1;
  if (embodiment.has("camera_sizes")) s.camera_sizes = parse_camera_sizes(embodiment, s);
  if (s.plan_steps != s.chunk * s.chunks_per_plan) {
    fail(LE_MALFORMED, "manifest.json: plan_steps is %u, not chunk %u times chunks_per_plan %u.",
         s.plan_steps, s.chunk, s.chunks_per_plan);
  }
  check_policy(policy, s);
  const uint64_t plan_numbers = uint64_t{std::max(s.plan_steps, s.predicted)} * s.action_dim;
  if (s.seen_bytes() > kMostImageBytes || plan_numbers > kMostPlanNumbers) {
    fail(LE_MALFORMED, "manifest.json: the images or the plan are larger than this library takes.");
  }
  return s;
}

void check_names(const std::vector<std::string> &names, const char *what) {
  std::vector<std::string> sorted = names;
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end()) {
    fail(LE_MALFORMED, "manifest.json: two %s are named %s.", what, twice->c_str());
  }
}

std::vector<std::string> parse_cameras(const Json &cameras) {
  std::vector<std::string> names;
  for (const Json &name : cameras.items()) names.push_back(name.text());
  check_names(names, "cameras");
  return names;
}

std::vector<Dimension> parse_dimensions(const Json &dimensions, const char *what) {
  std::vector<Dimension> found;
  std::vector<std::string> names;
  for (const Json &dim : dimensions.items()) {
    const std::string kind = dim.has("kind") ? dim.at("kind").text() : "";
    found.push_back({dim.at("name").text(), dim.at("unit").text(), kind});
    names.push_back(found.back().name);
  }
  check_names(names, what);
  return found;
}

// An absolute dimension is measured by the state of the same name and unit.
int32_t measured_by(const Dimension &action, const std::vector<Dimension> &state) {
  if (action.kind != "absolute") return -1;
  for (size_t i = 0; i < state.size(); ++i) {
    if (state[i].name == action.name && state[i].unit == action.unit) {
      return static_cast<int32_t>(i);
    }
  }
  return -1;
}

// Absent means no limit.
float parse_change_limit(const Json &dim, const char *key) {
  if (!dim.has(key)) return std::numeric_limits<float>::infinity();
  return static_cast<float>(dim.at(key).real());
}

std::vector<ActionLimit> parse_limits(const Json &actions) {
  std::vector<ActionLimit> limits;
  for (const Json &dim : actions.items()) {
    const auto lower = static_cast<float>(dim.at("lower").real());
    const auto upper = static_cast<float>(dim.at("upper").real());
    if (lower >= upper) {
      fail(LE_MALFORMED, "%s: lower is not below upper.", dim.path().c_str());
    }
    const std::string kind = dim.at("kind").text();
    // What is never written is `clamp`.
    limits.push_back({kind == "delta", dim.has("on_limit"), lower, upper,
                      parse_change_limit(dim, "max_step_change"),
                      parse_change_limit(dim, "max_acceleration"),
                      parse_change_limit(dim, "max_jerk")});
  }
  return limits;
}

// What all checks together come to: a failure counts before a gap, a gap before success.
std::string parse_verdict(const Json &parity) {
  std::string overall = "pass";
  for (const Json &check : parity.at("checks").items()) {
    const std::string verdict = check.at("verdict").text();
    if (verdict == "fail" || overall == "pass") overall = verdict;
    if (overall == "fail") break;
  }
  if (parity.at("verdict").text() != overall) {
    fail(LE_MALFORMED, "manifest.json: parity: the verdict does not follow from the checks.");
  }
  return overall;
}

bool same_spec(const Json &json, const TensorSpec &spec) {
  if (json.at("name").text() != spec.name) return false;
  if (json.at("dtype").text() != type_name(spec.type)) return false;
  const std::vector<Json> shape = json.at("shape").items();
  if (shape.size() != spec.shape.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i].integer() != static_cast<uint64_t>(spec.shape[i])) return false;
  }
  return true;
}

void require_specs(const Json &json, const std::vector<TensorSpec> &specs) {
  const std::vector<Json> found = json.items();
  bool same = found.size() == specs.size();
  for (size_t i = 0; same && i < specs.size(); ++i) {
    const auto is_it = [&](const Json &item) { return same_spec(item, specs[i]); };
    if (std::count_if(found.begin(), found.end(), is_it) == 1) continue;
    fail(LE_INCOMPATIBLE, "%s: this library runs a graph with %s.", json.path().c_str(),
         describe(specs[i]).c_str());
  }
  if (!same) {
    fail(LE_INCOMPATIBLE, "%s has %zu items; this library runs a graph with %zu.",
         json.path().c_str(), found.size(), specs.size());
  }
}

EngineFacts require_engine(const Json &engine, const std::vector<Member> &members,
                           const Signature &signature) {
  EngineFacts facts = {};
  facts.member = member_rule(engine.at("member").text())->name;
  facts.compiled = engine.has("compiled");
  facts.provider = find_provider(engine.at("provider").text(), facts.member);
  const char *kind = facts.provider == nullptr ? kPlainKind : facts.provider->kind;
  const bool compiled = facts.provider != nullptr && facts.provider->compiled;
  if (engine.at("kind").text() != kind || facts.compiled != compiled) {
    fail(LE_INCOMPATIBLE, "%s is an engine of kind %s, which %s does not run.", facts.member,
         engine.at("kind").text().c_str(),
         facts.provider == nullptr ? kCpuProvider : facts.provider->words);
  }
  if (facts.provider != nullptr) require_files(*facts.provider, members, facts.member);
  if (facts.compiled) {
    facts.facts = {engine.at("compiled").at("version").text(),
                   engine.at("compiled").at("compute_capability").text()};
  }
  require_specs(engine.at("inputs"), signature.inputs);
  require_specs(engine.at("outputs"), signature.outputs);
  engine.at("session_options").each_member([&](const Json &key, const Json &value) {
    facts.options.emplace_back(key.text(), value.text());
  });
  return facts;
}

DeviceNeeds parse_device(const Json &root) {
  DeviceNeeds needs = {};
  if (!root.has("device")) return needs;
  const Json device = root.at("device"), versions = device.at("versions");
  const auto text = [](const Json &from, const char *key) {
    return from.has(key) ? from.at(key).text() : std::string();
  };
  needs.compute_capability = text(device, "compute_capability");
  needs.driver = text(versions, "driver");
  needs.cuda = text(versions, "cuda");
  needs.memory_bytes = device.at("memory_bytes").integer();
  return needs;
}

// With a planner the noise has the shape of the actions; else the engine says which it has.
std::vector<int64_t> parse_noise_shape(const Json &inputs, const Sizes &s) {
  if (s.plans()) return {s.chunk, s.action_dim};
  std::vector<int64_t> shape;
  uint64_t count = 1;
  for (const Json &input : inputs.items()) {
    if (s.denoise_steps == 0 || input.at("name").text() != "noise") continue;
    for (const Json &extent : input.at("shape").items()) {
      shape.push_back(static_cast<int64_t>(extent.integer()));
      count *= extent.integer();
      if (count > kMostPlanNumbers) {
        fail(LE_INCOMPATIBLE, "%s: the noise is larger than this library takes.",
             input.path().c_str());
      }
    }
  }
  if (s.denoise_steps > 0 && shape.empty()) {
    fail(LE_INCOMPATIBLE, "%s: a policy that denoises takes noise.", inputs.path().c_str());
  }
  return shape;
}

// Another schema may have other rules; so its number is read before all else.
void require_schema(const Json &root) {
  const double schema = root.at("schema_version").whole();
  if (schema != kSchemaVersion && std::abs(schema) < 0x1p53) {
    fail(LE_INCOMPATIBLE, "The release has manifest schema %.17g; this library reads schema %d.",
         schema, kSchemaVersion);
  }
}

void require_runtime(const Json &runtime) {
  const uint64_t abi = runtime.at("abi_version").integer();
  if (abi != LE_ABI_VERSION) {
    fail(LE_ABI_MISMATCH, "The release is made for ABI version %llu; this library has version %u.",
         static_cast<unsigned long long>(abi), LE_ABI_VERSION);
  }
  require_arch(runtime.at("arch"));
}

// All that makes bytes a manifest, as bundle/manifest.py has it.
Manifest read_valid(const Json &root, const Digest &sha256) {
  const Json embodiment = root.at("embodiment"), actions = embodiment.at("actions");
  Manifest m = {};
  m.sha256 = sha256;
  m.name = root.at("name").text();
  m.target = root.at("target").text();
  m.recipe = root.at("recipe").text();
  m.onnxruntime_version = root.at("runtime").at("onnxruntime_version").text();
  m.sizes = parse_sizes(root.at("policy"), embodiment);
  m.control_hz = embodiment.at("control_hz").real();
  m.cameras = parse_cameras(embodiment.at("cameras"));
  m.state = parse_dimensions(embodiment.at("state"), "state dimensions");
  m.actions = parse_dimensions(actions, "action dimensions");
  m.limits = parse_limits(actions);
  for (size_t d = 0; d < m.limits.size(); ++d) {
    m.limits[d].measured_by = measured_by(m.actions[d], m.state);
  }
  m.verdict = parse_verdict(root.at("parity"));
  m.random_weights = root.has("random_weights");
  m.security_epoch = root.has("security_epoch") ? root.at("security_epoch").integer() : 0;
  m.members = parse_members(root.at("members"));
  if (root.at("engines").has("planner") != m.sizes.plans()) {
    fail(LE_MALFORMED, "manifest.json: the planner engine does not fit the bins.");
  }
  check_members(m.members, root.at("engines"), m.sizes);
  check_providers(m.members, root);
  return m;
}

Json checked_root(const JsonDocument &document, const char *data, size_t size) {
  const Json root = document.root();
  require_schema(root);
  document.require_canonical(data, size);
  check_rules(root);
  return root;
}

}  // namespace

void require_files(const ProviderRule &provider, const std::vector<Member> &members,
                   const char *engine) {
  const char *plugin = kProviderFiles[provider.first_file + provider.file_count - 1];
  if (has_member(members, plugin)) return;
  fail(LE_NO_PROVIDER, "%s runs on %s, whose files the release does not hold.", engine,
       provider.words);
}

const char *own_arch() {
#if defined(__x86_64__)
  return "x86_64-linux-gnu";
#elif defined(__aarch64__)
  return "aarch64-linux-gnu";
#else
#error "add the architecture's name here"
#endif
}

Manifest read_manifest(const char *data, size_t size) {
  const JsonDocument document("manifest.json", data, size);
  return read_valid(checked_root(document, data, size), sha256(data, size));
}

Manifest parse_manifest(const char *data, size_t size) {
  const JsonDocument document("manifest.json", data, size);
  const Json root = checked_root(document, data, size);
  require_runtime(root.at("runtime"));
  Manifest m = read_valid(root, sha256(data, size));
  for (const MemberRule &rule : kMemberRules) {
    const bool apart = rule.presence == Presence::kOptional && rule.beside != nullptr;
    if (apart && has_member(m.members, rule.name)) {
      fail(LE_INCOMPATIBLE, "%s: this library runs engines that lie in one file.", rule.name);
    }
  }
  const Json engines = root.at("engines");
  if (m.sizes.plans()) {
    m.planner = require_engine(engines.at("planner"), m.members, planner_signature(m.sizes));
  }
  m.sizes.noise_shape = parse_noise_shape(engines.at("refiner").at("inputs"), m.sizes);
  m.refiner = require_engine(engines.at("refiner"), m.members, refiner_signature(m.sizes));
  m.device = parse_device(root);
  if (root.has("provision")) {
    m.provision_provider = root.at("provision").at("provider").text();
  }
  return m;
}

}  // namespace le
