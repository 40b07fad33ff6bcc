// The C boundary: arguments in, status and text out, no exception through.

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "control/noise.h"
#include "control/policy.h"
#include "engine/ort_engines.h"
#include "engine/trt_engines.h"
#include "error.h"
#include "libra_edge.h"
#include "release/release.h"

using le::Error;
using le::fail;

namespace {

constexpr uint32_t kLargestStruct = 16384;  // no struct of ours will ever need more
constexpr uint32_t kMostThreads = 256;
constexpr uint64_t kMostNoise = uint64_t{1} << 32;

void put_text(char *to, uint32_t size, const char *text) {
  if (to == nullptr || size == 0) return;
  const size_t length = std::min<size_t>(std::strlen(text), size - 1);
  std::memcpy(to, text, length);
  to[length] = '\0';
}

template <typename Body>
le_status guard(char *error, uint32_t error_size, Body &&body) noexcept {
  try {
    put_text(error, error_size, body().c_str());
    return LE_OK;
  } catch (const Error &failure) {
    put_text(error, error_size, failure.text.c_str());
    return failure.status;
  } catch (const std::bad_alloc &) {
    put_text(error, error_size, "Memory ran out.");
    return LE_NO_MEMORY;
  } catch (const std::exception &bug) {
    put_text(error, error_size, bug.what());
    return LE_INTERNAL;
  } catch (...) {
    put_text(error, error_size, "An unknown exception.");
    return LE_INTERNAL;
  }
}

template <typename T>
void require(const T *pointer, const char *name) {
  if (pointer == nullptr) fail(LE_INVALID_ARGUMENT, "%s is NULL.", name);
}

template <typename T>
uint32_t checked_size(const T *structure, const char *name) {
  require(structure, name);
  const uint32_t size = structure->struct_size;
  if (size < sizeof(T) || size > kLargestStruct) {
    fail(LE_INVALID_ARGUMENT, "%s->struct_size is %u; it must be at least %zu.", name, size,
         sizeof(T));
  }
  return size;
}

// Copies a caller's struct; what a newer header added must be zero, for nobody here reads it.
template <typename T>
T read_struct(const T *from, const char *name) {
  const uint32_t size = checked_size(from, name);
  const auto *bytes = reinterpret_cast<const uint8_t *>(from);
  const auto is_zero = [](auto value) { return value == 0; };
  T copy;
  std::memcpy(&copy, from, sizeof copy);
  if (!std::all_of(bytes + sizeof copy, bytes + size, is_zero) ||
      !std::all_of(std::begin(copy.reserved), std::end(copy.reserved), is_zero)) {
    fail(LE_INVALID_ARGUMENT, "%s has a reserved field that is not zero.", name);
  }
  return copy;
}

template <typename T>
void write_struct(T *to, uint32_t size, T value) {
  value.struct_size = size;
  std::memset(reinterpret_cast<uint8_t *>(to) + sizeof value, 0, size - sizeof value);
  std::memcpy(to, &value, sizeof value);
}

le_open_options read_open_options(const le_open_options *from) {
  const le_open_options options = read_struct(from, "options");
  if (options.abi_version != LE_ABI_VERSION) {
    fail(LE_ABI_MISMATCH, "The program was compiled for ABI version %u; this library has %u.",
         options.abi_version, LE_ABI_VERSION);
  }
  require(options.release_dir, "options->release_dir");
  if (options.threads < 1 || options.threads > kMostThreads) {
    fail(LE_INVALID_ARGUMENT, "threads is %u; it must be 1 to %u.", options.threads, kMostThreads);
  }
  constexpr uint32_t kFlags = LE_OPEN_ALLOW_FAILED | LE_OPEN_ALLOW_RANDOM_WEIGHTS;
  if ((options.flags & ~kFlags) != 0) {
    fail(LE_INVALID_ARGUMENT, "flags is %u; it has a flag that is unknown.", options.flags);
  }
  return options;
}

le_policy *open_policy(const le_open_options *from) {
  const le_open_options options = read_open_options(from);
  const le::Release release = le::read_release(options.release_dir, options.flags);
  std::optional<le::BuiltEngines> built;
  if (options.engines_dir != nullptr) {
    const bool unproven = (options.flags & LE_OPEN_ALLOW_FAILED) != 0;
    built = le::read_built(options.engines_dir, release.manifest, unproven);
  }
  std::optional<le::Tokenizer> tokenizer;
  if (release.manifest.sizes.instruction_length > 0) {
    tokenizer.emplace(release.tokenizer.data(), release.tokenizer.size());
  }
  std::unique_ptr<le::Engines> engines;
  if (built && built->library.size() > 0) {
    engines = std::make_unique<le::TrtEngines>(release.manifest, *built);
  } else {
    engines = std::make_unique<le::OrtEngines>(release, built ? &*built : nullptr, options.threads,
                                               options.cache_dir);
  }
  return new le_policy(release.manifest, std::move(tokenizer), std::move(engines), options);
}

le_status describe_dim(const le_policy *policy,
                       bool (le_policy::*describe)(uint32_t, le_dim_info *) const, uint32_t dim,
                       le_dim_info *info) {
  return guard(nullptr, 0, [&]() -> std::string {
    require(policy, "policy");
    const uint32_t size = checked_size(info, "info");
    le_dim_info value = {};
    if (!(policy->*describe)(dim, &value))
      fail(LE_INVALID_ARGUMENT, "There is no dimension %u.", dim);
    write_struct(info, size, value);
    return {};
  });
}

}  // namespace

uint32_t le_abi_version(void) {
  return LE_ABI_VERSION;
}

const char *le_version_string(void) {
  return LE_VERSION;
}

const char *le_status_name(le_status status) {
  static const char *const names[] = {"LE_OK",
                                      "LE_INVALID_ARGUMENT",
                                      "LE_ABI_MISMATCH",
                                      "LE_IO",
                                      "LE_MALFORMED",
                                      "LE_INTEGRITY",
                                      "LE_INCOMPATIBLE",
                                      "LE_ENGINE",
                                      "LE_NOT_FINITE",
                                      "LE_NO_MEMORY",
                                      "LE_INTERNAL",
                                      "LE_WRONG_ARCHITECTURE",
                                      "LE_NO_PROVIDER",
                                      "LE_UNPROVEN",
                                      "LE_NO_DRIVER",
                                      "LE_DRIVER_TOO_OLD",
                                      "LE_NO_DEVICE",
                                      "LE_SEVERAL_DEVICES",
                                      "LE_WRONG_DEVICE",
                                      "LE_DEVICE_TOO_SMALL",
                                      "LE_ENGINE_MISMATCH",
                                      "LE_ENGINE_REFUSED"};
  const bool known = status >= 0 && static_cast<size_t>(status) < std::size(names);
  return known ? names[status] : "LE_UNKNOWN";
}

le_status le_open(const le_open_options *options, le_policy **policy, char *error,
                  uint32_t error_size) {
  return guard(error, error_size, [&]() -> std::string {
    require(policy, "policy");
    *policy = open_policy(options);
    return {};
  });
}

le_status le_build_engines(const le_open_options *from, char *error, uint32_t error_size) {
  return guard(error, error_size, [&]() -> std::string {
    const le_open_options options = read_open_options(from);
    require(options.engines_dir, "options->engines_dir");
    const le::Release release = le::read_release(options.release_dir, options.flags);
    le::build_engines(release, options.engines_dir, options.threads);
    return {};
  });
}

le_status le_info(const le_policy *policy, le_policy_info *info) {
  return guard(nullptr, 0, [&]() -> std::string {
    require(policy, "policy");
    const uint32_t size = checked_size(info, "info");
    le_policy_info value = {};
    policy->info(&value);
    write_struct(info, size, value);
    return {};
  });
}

le_status le_engine(const le_policy *policy, uint32_t engine, le_engine_info *info) {
  return guard(nullptr, 0, [&]() -> std::string {
    require(policy, "policy");
    const uint32_t size = checked_size(info, "info");
    le_engine_info value = {};
    if (!policy->engine(engine, &value)) {
      fail(LE_INVALID_ARGUMENT, "There is no engine %u.", engine);
    }
    write_struct(info, size, value);
    return {};
  });
}

const char *le_camera_name(const le_policy *policy, uint32_t camera) {
  return policy == nullptr ? nullptr : policy->camera_name(camera);
}

le_status le_camera_size(const le_policy *policy, uint32_t camera, uint32_t *height,
                         uint32_t *width) {
  return guard(nullptr, 0, [&]() -> std::string {
    require(policy, "policy");
    require(height, "height");
    require(width, "width");
    if (!policy->camera_size(camera, height, width)) {
      fail(LE_INVALID_ARGUMENT, "There is no camera %u.", camera);
    }
    return {};
  });
}

le_status le_state_dim(const le_policy *policy, uint32_t dim, le_dim_info *info) {
  return describe_dim(policy, &le_policy::state_dim, dim, info);
}

le_status le_action_dim(const le_policy *policy, uint32_t dim, le_dim_info *info) {
  return describe_dim(policy, &le_policy::action_dim, dim, info);
}

le_status le_tokenize(const le_policy *policy, const char *text, int64_t *tokens,
                      uint32_t token_count, char *error, uint32_t error_size) {
  return guard(error, error_size, [&]() -> std::string {
    require(policy, "policy");
    policy->tokenize(text, tokens, token_count);
    return {};
  });
}

le_status le_set_instruction(le_policy *policy, const int64_t *tokens, uint32_t token_count,
                             char *error, uint32_t error_size) {
  return guard(error, error_size, [&]() -> std::string {
    require(policy, "policy");
    policy->set_instruction(tokens, token_count);
    return {};
  });
}

le_status le_observe(le_policy *policy, const le_observation *observation, char *error,
                     uint32_t error_size) {
  return guard(error, error_size, [&]() -> std::string {
    require(policy, "policy");
    policy->observe(read_struct(observation, "observation"));
    return {};
  });
}

le_status le_step(le_policy *policy, float *action, uint32_t action_count, le_step_info *info,
                  char *error, uint32_t error_size) {
  return guard(error, error_size, [&]() {
    require(policy, "policy");
    const uint32_t size = info == nullptr ? 0 : checked_size(info, "info");
    le_step_info value = {};
    std::string fault = policy->step(action, action_count, &value);
    if (info != nullptr) write_struct(info, size, value);
    return fault;
  });
}

le_status le_reset(le_policy *policy, uint64_t seed) {
  return guard(nullptr, 0, [&]() -> std::string {
    require(policy, "policy");
    policy->reset(seed);
    return {};
  });
}

le_status le_plan(le_policy *policy, const le_observation *observation, const int64_t *tokens,
                  uint32_t token_count, int32_t *intent, float *margin, uint64_t plan_count,
                  char *error, uint32_t error_size) {
  return guard(error, error_size, [&]() -> std::string {
    require(policy, "policy");
    policy->plan(read_struct(observation, "observation"), tokens, token_count, intent, margin,
                 plan_count);
    return {};
  });
}

le_status le_refine(le_policy *policy, const le_observation *observation, const int32_t *intent,
                    const float *noise, float *actions, uint64_t chunk_count, char *error,
                    uint32_t error_size) {
  return guard(error, error_size, [&]() -> std::string {
    require(policy, "policy");
    policy->refine(read_struct(observation, "observation"), intent, noise, actions, chunk_count);
    return {};
  });
}

le_status le_noise(uint64_t seed, uint64_t chunk, float *noise, uint64_t count) {
  return guard(nullptr, 0, [&]() -> std::string {
    if (count > 0) require(noise, "noise");
    if (count > kMostNoise) fail(LE_INVALID_ARGUMENT, "count is too large.");
    le::chunk_noise(seed, chunk, noise, count);
    return {};
  });
}

le_status le_start(le_policy *policy, const le_run_options *options, char *error,
                   uint32_t error_size) {
  return guard(error, error_size, [&]() -> std::string {
    require(policy, "policy");
    policy->start(read_struct(options, "options"));
    return {};
  });
}

le_status le_stop(le_policy *policy) {
  return guard(nullptr, 0, [&]() -> std::string {
    require(policy, "policy");
    policy->stop();
    return {};
  });
}

// Without guard, which would put a std::string together.
le_status le_tick(le_policy *policy, uint64_t now_ns, float *action, uint32_t action_count,
                  le_tick_info *info) {
  const uint32_t size = info == nullptr ? sizeof(le_tick_info) : info->struct_size;
  if (policy == nullptr || size < sizeof(le_tick_info) || size > kLargestStruct) {
    return LE_INVALID_ARGUMENT;
  }
  le_tick_info value = {};
  if (!policy->tick(now_ns, action, action_count, &value)) return LE_INVALID_ARGUMENT;
  if (info != nullptr) write_struct(info, size, value);
  return LE_OK;
}

le_status le_set_chunks_per_plan(le_policy *policy, uint32_t chunks_per_plan) {
  return guard(nullptr, 0, [&]() -> std::string {
    require(policy, "policy");
    policy->set_chunks_per_plan(chunks_per_plan);
    return {};
  });
}

le_status le_work(le_policy *policy, uint32_t work, uint32_t *done) {
  return guard(nullptr, 0, [&]() -> std::string {
    require(policy, "policy");
    require(done, "done");
    *done = policy->work(work) ? 1 : 0;
    return {};
  });
}

le_status le_last_plan(const le_policy *policy, int32_t *intent, uint64_t plan_count) {
  return guard(nullptr, 0, [&]() -> std::string {
    require(policy, "policy");
    policy->last_plan(intent, plan_count);
    return {};
  });
}

le_status le_stats(le_policy *policy, le_stats_info *stats) {
  return guard(nullptr, 0, [&]() -> std::string {
    require(policy, "policy");
    const uint32_t size = checked_size(stats, "stats");
    le_stats_info value = {};
    policy->stats(&value);
    write_struct(stats, size, value);
    return {};
  });
}

le_status le_fault_text(le_policy *policy, char *text, uint32_t size) {
  return guard(nullptr, 0, [&]() -> std::string {
    require(policy, "policy");
    require(text, "text");
    put_text(text, size, policy->fault_text().c_str());
    return {};
  });
}

void le_destroy(le_policy *policy) {
  delete policy;
}
