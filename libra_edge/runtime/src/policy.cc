#include "policy.h"

#include <time.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "error.h"
#include "noise.h"

using le::Engine;
using le::Error;
using le::fail;
using le::Workspace;

namespace {

constexpr int kLogFatal = 4;  // every error comes back as a status; nothing is to reach stderr

le::OrtHandle<le::OrtEnv> create_env(const le::Ort &ort) {
  le::OrtEnv *env = nullptr;
  ort.check(ort.create_env(kLogFatal, "libra_edge", &env), "ONNX Runtime");
  return {env, ort.release_env};
}

uint64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

bool all_finite(const float *values, uint64_t count) {
  return std::all_of(values, values + count, [](float value) { return std::isfinite(value); });
}

bool all_in_range(const int32_t *intents, uint64_t count, uint32_t bins) {
  return std::all_of(intents, intents + count, [bins](int32_t intent) {
    return intent >= 0 && static_cast<uint32_t>(intent) < bins;
  });
}

const char *describe(le_reason fault) {
  switch (fault) {
    case LE_REASON_PLANNER_NOT_FINITE:
      return "The planner gave a margin that is not finite.";
    case LE_REASON_REFINER_NOT_FINITE:
      return "The refiner gave an action that is not finite.";
    case LE_REASON_INTENT_OUT_OF_RANGE:
      return "The planner gave an intent outside its bins.";
    default:
      return "";
  }
}

void check_result(le_reason fault) {
  if (fault == LE_REASON_NONE) return;
  fail(fault == LE_REASON_INTENT_OUT_OF_RANGE ? LE_ENGINE : LE_NOT_FINITE, "%s", describe(fault));
}

void check_count(const char *what, uint64_t found, uint64_t expected) {
  if (found == expected) return;
  fail(LE_INVALID_ARGUMENT, "%s is %llu; this release needs %llu.", what,
       static_cast<unsigned long long>(found), static_cast<unsigned long long>(expected));
}

}  // namespace

le::Workspace::Workspace(const Sizes &sizes, const Engine &planner_engine,
                         const Engine &refiner_engine)
    : images(sizes.image_bytes()),
      instruction(sizes.instruction_length),
      state(sizes.state_dim),
      plan_intent(sizes.plan_count()),
      margin(sizes.plan_count()),
      chunk_intent(sizes.chunk_count()),
      noise(sizes.chunk_count()),
      actions(sizes.chunk_count()),
      planner(planner_engine.bind({images.data(), instruction.data(), state.data()},
                                  {plan_intent.data(), margin.data()})),
      refiner(refiner_engine.bind({images.data(), state.data(), chunk_intent.data(), noise.data()},
                                  {actions.data()})) {}

le_policy::le_policy(le::Release release, uint32_t threads, uint64_t seed)
    : manifest_(std::move(release.manifest)),
      manifest_sha256_(release.manifest_sha256),
      threads_(threads),
      ort_(release.onnxruntime_path, manifest_.onnxruntime_version),
      env_(create_env(ort_)),
      planner_(ort_, *env_, le::kPlannerMember, release.planner,
               le::planner_signature(manifest_.sizes), manifest_.planner_options, threads),
      refiner_(ort_, *env_, le::kRefinerMember, release.refiner,
               le::refiner_signature(manifest_.sizes), manifest_.refiner_options, threads),
      control_(manifest_.sizes, planner_, refiner_),
      direct_(manifest_.sizes, planner_, refiner_),
      command_(manifest_.sizes.action_dim),
      seed_(seed) {
  for (size_t d = 0; d < command_.size(); ++d) {
    command_[d] = std::clamp(0.0f, manifest_.limits[d].lower, manifest_.limits[d].upper);
  }
}

void le_policy::info(le_policy_info *info) const {
  const le::Sizes &sizes = manifest_.sizes;
  info->abi_version = LE_ABI_VERSION;
  info->bins = sizes.bins;
  info->chunk = sizes.chunk;
  info->chunks_per_plan = sizes.chunks_per_plan;
  info->plan_steps = sizes.plan_steps;
  info->denoise_steps = sizes.denoise_steps;
  info->action_dim = sizes.action_dim;
  info->state_dim = sizes.state_dim;
  info->cameras = sizes.cameras;
  info->image_height = sizes.image_height;
  info->image_width = sizes.image_width;
  info->instruction_length = sizes.instruction_length;
  info->threads = threads_;
  info->control_hz = manifest_.control_hz;
  info->name = manifest_.name.c_str();
  info->target = manifest_.target.c_str();
  info->recipe = manifest_.recipe.c_str();
  info->arch = le::own_arch();
  info->onnxruntime_version = manifest_.onnxruntime_version.c_str();
  std::copy(manifest_sha256_.begin(), manifest_sha256_.end(), info->manifest_sha256);
}

void le_policy::check_observation(const le_observation &observation) const {
  check_count("image_bytes", observation.image_bytes, manifest_.sizes.image_bytes());
  check_count("state_count", observation.state_count, manifest_.sizes.state_dim);
  if (observation.images == nullptr || observation.state == nullptr) {
    fail(LE_INVALID_ARGUMENT, "The observation has no images or no state.");
  }
}

void le_policy::check_tokens(const int64_t *tokens, uint32_t count) const {
  check_count("token_count", count, manifest_.sizes.instruction_length);
  if (tokens == nullptr) fail(LE_INVALID_ARGUMENT, "tokens is NULL.");
  if (std::any_of(tokens, tokens + count, [](int64_t token) { return token < 0; })) {
    fail(LE_INVALID_ARGUMENT, "A token is negative.");
  }
}

void le_policy::load(Workspace &work, const le_observation &observation) const {
  std::copy_n(observation.images, work.images.size(), work.images.begin());
  std::copy_n(observation.state, work.state.size(), work.state.begin());
}

void le_policy::set_instruction(const int64_t *tokens, uint32_t count) {
  check_tokens(tokens, count);
  std::copy_n(tokens, count, control_.instruction.begin());
  has_instruction_ = true;
}

void le_policy::observe(const le_observation &observation) {
  check_observation(observation);
  if (!all_finite(observation.state, observation.state_count)) {
    if (fault_ == LE_REASON_NONE) fault_ = LE_REASON_STATE_NOT_FINITE;
    fail(LE_NOT_FINITE, "The observed state is not finite.");
  }
  load(control_, observation);
  timestamp_ns_ = observation.timestamp_ns;
  has_observation_ = true;
}

le_reason le_policy::run_planner(Workspace &work) const {
  planner_.run(work.planner);
  if (!all_finite(work.margin.data(), work.margin.size())) return LE_REASON_PLANNER_NOT_FINITE;
  if (!all_in_range(work.plan_intent.data(), work.plan_intent.size(), manifest_.sizes.bins)) {
    return LE_REASON_INTENT_OUT_OF_RANGE;
  }
  return LE_REASON_NONE;
}

le_reason le_policy::run_refiner(Workspace &work) const {
  refiner_.run(work.refiner);
  const bool finite = all_finite(work.actions.data(), work.actions.size());
  return finite ? LE_REASON_NONE : LE_REASON_REFINER_NOT_FINITE;
}

le_reason le_policy::waits_for() const {
  if (!has_observation_) return LE_REASON_NO_OBSERVATION;
  return has_instruction_ ? LE_REASON_NONE : LE_REASON_NO_INSTRUCTION;
}

// Fills the action queue, or latches a fault and says why.
std::string le_policy::make_chunk(le_step_info *info) {
  const le::Sizes &sizes = manifest_.sizes;
  le_reason failure = LE_REASON_PLANNER_FAILED;
  try {
    const uint64_t start_ns = now_ns();
    if (intents_left_ == 0) {
      info->flags |= LE_STEP_PLANNER_RAN;
      fault_ = run_planner(control_);
      info->planner_duration_ns = now_ns() - start_ns;
      if (fault_ != LE_REASON_NONE) return describe(fault_);
      intents_left_ = sizes.plan_steps;
      plan_step_ = static_cast<int64_t>(step_);
    }
    failure = LE_REASON_REFINER_FAILED;
    const uint64_t used = uint64_t{sizes.plan_steps - intents_left_} * sizes.action_dim;
    std::copy_n(control_.plan_intent.begin() + static_cast<ptrdiff_t>(used),
                control_.chunk_intent.size(), control_.chunk_intent.begin());
    le::chunk_noise(seed_, chunks_made_, control_.noise.data(), control_.noise.size());
    info->flags |= LE_STEP_REFINER_RAN;
    const uint64_t refine_ns = now_ns();
    fault_ = run_refiner(control_);
    info->refiner_duration_ns = now_ns() - refine_ns;
    if (fault_ != LE_REASON_NONE) return describe(fault_);
  } catch (const Error &error) {
    fault_ = failure;
    return error.text;
  }
  intents_left_ -= sizes.chunk;
  actions_left_ = sizes.chunk;
  ++chunks_made_;
  return {};
}

// Takes the next action of the chunk, within the limits.
void le_policy::act(float *action, le_step_info *info) {
  const le::Sizes &sizes = manifest_.sizes;
  const float *row =
      control_.actions.data() + uint64_t{sizes.chunk - actions_left_} * sizes.action_dim;
  for (uint32_t d = 0; d < sizes.action_dim; ++d) {
    action[d] = std::clamp(row[d], manifest_.limits[d].lower, manifest_.limits[d].upper);
    if (action[d] == row[d]) continue;
    info->flags |= LE_STEP_CLAMPED;
    ++info->clamped_count;
    if (d < 64) info->clamped_mask |= uint64_t{1} << d;
  }
  std::copy_n(action, sizes.action_dim, command_.begin());
  has_command_ = true;
  --actions_left_;
  info->chunk = chunks_made_ - 1;
}

void le_policy::hold(float *action, le_step_info *info) const {
  for (uint32_t d = 0; d < manifest_.sizes.action_dim; ++d) {
    const bool delta = manifest_.limits[d].delta;
    action[d] = delta ? 0.0f : command_[d];
    if (!delta && !has_command_) info->flags |= LE_STEP_NO_COMMAND;
  }
}

std::string le_policy::step(float *action, uint32_t count, le_step_info *info) {
  check_count("action_count", count, manifest_.sizes.action_dim);
  if (action == nullptr) fail(LE_INVALID_ARGUMENT, "action is NULL.");
  std::string met;
  const le_reason waiting = waits_for();
  if (fault_ == LE_REASON_NONE && waiting == LE_REASON_NONE && actions_left_ == 0) {
    met = make_chunk(info);
  }
  info->state = fault_ != LE_REASON_NONE    ? LE_FAULT
                : waiting != LE_REASON_NONE ? LE_HOLD
                                            : LE_RUNNING;
  info->reason = fault_ != LE_REASON_NONE ? fault_ : waiting;
  if (info->state == LE_RUNNING) {
    act(action, info);
  } else {
    hold(action, info);
  }
  info->step = step_;
  info->plan_step = plan_step_;
  info->plan_age_steps = plan_step_ < 0 ? -1 : static_cast<int64_t>(step_) - plan_step_;
  info->observation_timestamp_ns = timestamp_ns_;
  ++step_;
  return met;
}

void le_policy::reset(uint64_t seed) {
  seed_ = seed;
  has_observation_ = false;
  timestamp_ns_ = 0;
  fault_ = LE_REASON_NONE;
  step_ = chunks_made_ = 0;
  actions_left_ = intents_left_ = 0;
  plan_step_ = -1;
}

void le_policy::plan(const le_observation &observation, const int64_t *tokens, uint32_t token_count,
                     int32_t *intent, float *margin, uint64_t count) {
  check_observation(observation);
  check_tokens(tokens, token_count);
  check_count("plan_count", count, manifest_.sizes.plan_count());
  if (intent == nullptr || margin == nullptr) fail(LE_INVALID_ARGUMENT, "An output is NULL.");
  if (!all_finite(observation.state, observation.state_count)) {
    fail(LE_NOT_FINITE, "The observed state is not finite.");
  }
  load(direct_, observation);
  std::copy_n(tokens, token_count, direct_.instruction.begin());
  check_result(run_planner(direct_));
  std::copy_n(direct_.plan_intent.begin(), count, intent);
  std::copy_n(direct_.margin.begin(), count, margin);
}

void le_policy::refine(const le_observation &observation, const int32_t *intent, const float *noise,
                       float *actions, uint64_t count) {
  check_observation(observation);
  check_count("chunk_count", count, manifest_.sizes.chunk_count());
  if (intent == nullptr || noise == nullptr || actions == nullptr) {
    fail(LE_INVALID_ARGUMENT, "An argument is NULL.");
  }
  if (!all_in_range(intent, count, manifest_.sizes.bins)) {
    fail(LE_INVALID_ARGUMENT, "An intent lies outside [0, %u).", manifest_.sizes.bins);
  }
  if (!all_finite(observation.state, observation.state_count) || !all_finite(noise, count)) {
    fail(LE_NOT_FINITE, "The observed state or the noise is not finite.");
  }
  load(direct_, observation);
  std::copy_n(intent, count, direct_.chunk_intent.begin());
  std::copy_n(noise, count, direct_.noise.begin());
  check_result(run_refiner(direct_));
  std::copy_n(direct_.actions.begin(), count, actions);
}
