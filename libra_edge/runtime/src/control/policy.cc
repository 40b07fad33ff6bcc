#include "control/policy.h"

#include <algorithm>
#include <utility>

#include "control/clock.h"
#include "control/noise.h"
#include "engine/checks.h"
#include "error.h"

using le::Error;
using le::fail;

namespace {

void check_result(le_reason fault) {
  if (fault == LE_REASON_NONE) return;
  fail(fault == LE_REASON_INTENT_OUT_OF_RANGE ? LE_ENGINE : LE_NOT_FINITE, "%s",
       le::describe(fault));
}

void check_count(const char *what, uint64_t found, uint64_t expected) {
  if (found == expected) return;
  fail(LE_INVALID_ARGUMENT, "%s is %llu; this release needs %llu.", what,
       static_cast<unsigned long long>(found), static_cast<unsigned long long>(expected));
}

}  // namespace

le_policy::le_policy(le::Manifest manifest, std::optional<le::Tokenizer> tokenizer,
                     std::unique_ptr<const le::Engines> engines, const le_open_options &options)
    : manifest_(std::move(manifest)),
      tokenizer_(std::move(tokenizer)),
      engines_(std::move(engines)),
      engines_info_(engines_->info()),
      threads_(options.threads),
      max_observation_age_ns_(le::complete_age(options.max_observation_age_ns)),
      control_(engines_->session()),
      direct_(engines_->session()),
      command_(manifest_.limits),
      seed_(options.seed) {}

void le_policy::check_observation(const le_observation &observation, uint32_t steps) const {
  check_count("image_bytes", observation.image_bytes, steps * manifest_.sizes.image_bytes());
  check_count("state_count", observation.state_count, steps * manifest_.sizes.state_dim);
  if (observation.images == nullptr || observation.state == nullptr) {
    fail(LE_INVALID_ARGUMENT, "The observation has no images or no state.");
  }
}

void le_policy::check_planner() const {
  if (!manifest_.sizes.plans()) fail(LE_INVALID_ARGUMENT, "This policy has no planner.");
}

void le_policy::check_tokens(const int64_t *tokens, uint32_t count) const {
  if (!has_words()) fail(LE_INVALID_ARGUMENT, "This policy takes no instruction.");
  check_count("token_count", count, manifest_.sizes.instruction_length);
  if (tokens == nullptr) fail(LE_INVALID_ARGUMENT, "tokens is NULL.");
  const auto known = [this](int64_t token) { return tokenizer_->knows(token); };
  const int64_t *unknown = std::find_if_not(tokens, tokens + count, known);
  if (unknown != tokens + count) {
    fail(LE_INVALID_ARGUMENT, "%lld is no token of this release's vocabulary of %u.",
         static_cast<long long>(*unknown), tokenizer_->vocabulary());
  }
}

void le_policy::check_async() const {
  if (async_ == nullptr) fail(LE_INVALID_ARGUMENT, "Async mode is off: call le_start first.");
}

void le_policy::load(le::Io &io, const le_observation &observation) const {
  std::copy_n(observation.images, io.images.size(), io.images.begin());
  std::copy_n(observation.state, io.state.size(), io.state.begin());
}

void le_policy::set_instruction(const int64_t *tokens, uint32_t count) {
  check_tokens(tokens, count);
  std::copy_n(tokens, count, control_->io.instruction.begin());
  has_instruction_ = true;
  if (async_ != nullptr) async_->set_instruction(tokens);
}

void le_policy::observe(const le_observation &observation) {
  check_observation(observation, 1);
  if (!le::all_finite(observation.state, observation.state_count)) {
    if (async_ != nullptr) {
      async_->latch(LE_REASON_STATE_NOT_FINITE);
    } else if (fault_ == LE_REASON_NONE) {
      fault_ = LE_REASON_STATE_NOT_FINITE;
    }
    fail(LE_NOT_FINITE, "The observed state is not finite.");
  }
  if (async_ != nullptr) return async_->observe(observation);
  const le::Sizes &sizes = manifest_.sizes;
  le::Io &io = control_->io;
  const uint64_t gap = step_ - seen_step_;
  le::look(io.images.data(), !has_observation_, gap, sizes.observation_steps, sizes.image_bytes(),
           observation.images, io.images.data());
  le::look(io.state.data(), !has_observation_, gap, sizes.observation_steps, sizes.state_dim,
           observation.state, io.state.data());
  timestamp_ns_ = observation.timestamp_ns;
  observed_step_ = seen_step_ = step_;
  has_observation_ = true;
}

// The time of the control steps since it came: sync mode has no clock but them.
uint64_t le_policy::observation_age_ns() const {
  if (!has_observation_) return 0;
  return static_cast<uint64_t>(static_cast<double>(step_ - observed_step_) * 1e9 /
                               manifest_.control_hz);
}

le_reason le_policy::waits_for() const {
  if (!has_observation_) return LE_REASON_NO_OBSERVATION;
  if (has_words() && !has_instruction_) return LE_REASON_NO_INSTRUCTION;
  const bool old = observation_age_ns() > max_observation_age_ns_;
  return old ? LE_REASON_OBSERVATION_TOO_OLD : LE_REASON_NONE;
}

// Whether the newest chunk holds the action of this step. Steps pass in LE_HOLD too, and with them
// their actions and intents.
bool le_policy::has_action() const {
  return chunks_made_ > 0 && step_ < chunk_step_ + manifest_.sizes.chunk;
}

// Readies what the refiner takes besides noise, after a planner call where one is due.
void le_policy::look_ahead(le_step_info *info) {
  const le::Sizes &sizes = manifest_.sizes;
  le::Io &io = control_->io;
  if (!sizes.plans()) {
    const uint64_t gap = step_ - seen_step_;
    const uint32_t steps = sizes.observation_steps;
    le::look_back(io.images.data(), gap, steps, sizes.image_bytes(), io.images.data());
    le::look_back(io.state.data(), gap, steps, sizes.state_dim, io.state.data());
    seen_step_ = step_;
    plan_step_ = static_cast<int64_t>(observed_step_);
    return;
  }
  const bool planned = plan_step_ >= 0 &&
                       step_ + sizes.chunk <= static_cast<uint64_t>(plan_step_) + sizes.plan_steps;
  if (!planned) {
    const uint64_t start_ns = le::monotonic_ns();
    info->flags |= LE_STEP_PLANNER_RAN;
    fault_ = le::checked_plan(*control_, sizes.bins);
    info->planner_duration_ns = le::monotonic_ns() - start_ns;
    if (fault_ != LE_REASON_NONE) return;
    plan_step_ = static_cast<int64_t>(step_);
  }
  const uint64_t used = (step_ - static_cast<uint64_t>(plan_step_)) * sizes.action_dim;
  std::copy_n(io.plan_intent.begin() + static_cast<ptrdiff_t>(used), io.chunk_intent.size(),
              io.chunk_intent.begin());
}

// Fills the action queue, or latches a fault and says why.
std::string le_policy::make_chunk(le_step_info *info) {
  le::Io &io = control_->io;
  le_reason failure = LE_REASON_PLANNER_FAILED;
  try {
    look_ahead(info);
    if (fault_ != LE_REASON_NONE) return le::describe(fault_);
    failure = LE_REASON_REFINER_FAILED;
    le::chunk_noise(seed_, chunks_made_, io.noise.data(), io.noise.size());
    info->flags |= LE_STEP_REFINER_RAN;
    const uint64_t refine_ns = le::monotonic_ns();
    fault_ = le::checked_refine(*control_);
    info->refiner_duration_ns = le::monotonic_ns() - refine_ns;
    if (fault_ != LE_REASON_NONE) return le::describe(fault_);
  } catch (const Error &error) {
    fault_ = failure;
    return error.text;
  }
  chunk_step_ = step_;
  ++chunks_made_;
  return {};
}

// Sends the next action of the chunk, within the limits.
std::string le_policy::act(float *action, le_step_info *info) {
  const le::Sizes &sizes = manifest_.sizes;
  const uint64_t row = (step_ - chunk_step_) * sizes.action_dim;
  const float *state = control_->io.state.data() + sizes.seen_numbers() - sizes.state_dim;
  const le::Limited limited = command_.send(control_->io.actions.data() + row, state, action);
  info->flags |= limited.flags;
  info->clamped_count = limited.clamped_count;
  info->clamped_mask = limited.clamped_mask;
  info->chunk = chunks_made_ - 1;
  if (limited.fault) fault_ = LE_REASON_OUT_OF_LIMITS;
  return le::describe(fault_);
}

std::string le_policy::step(float *action, uint32_t count, le_step_info *info) {
  if (async_ != nullptr) fail(LE_INVALID_ARGUMENT, "Async mode is on: call le_tick, or le_stop.");
  check_count("action_count", count, manifest_.sizes.action_dim);
  if (action == nullptr) fail(LE_INVALID_ARGUMENT, "action is NULL.");
  std::string met;
  const le_reason waiting = waits_for();
  if (fault_ == LE_REASON_NONE && waiting == LE_REASON_NONE) {
    if (!has_action()) met = make_chunk(info);
    if (fault_ == LE_REASON_NONE) met = act(action, info);
    if (fault_ != LE_REASON_NONE) fault_text_ = met;
  }
  info->state = fault_ != LE_REASON_NONE    ? LE_FAULT
                : waiting != LE_REASON_NONE ? LE_HOLD
                                            : LE_RUNNING;
  info->reason = fault_ != LE_REASON_NONE ? fault_ : waiting;
  if (info->state != LE_RUNNING) info->flags |= command_.hold(action);
  info->step = step_;
  info->plan_step = plan_step_;
  info->plan_age_steps = plan_step_ < 0 ? -1 : static_cast<int64_t>(step_) - plan_step_;
  info->observation_timestamp_ns = timestamp_ns_;
  info->observation_age_ns = observation_age_ns();
  ++step_;
  return met;
}

void le_policy::reset(uint64_t seed) {
  seed_ = seed;
  has_observation_ = false;
  timestamp_ns_ = 0;
  fault_ = LE_REASON_NONE;
  fault_text_.clear();
  step_ = chunks_made_ = 0;
  plan_step_ = -1;
  if (async_ != nullptr) async_->reset(seed);
}

void le_policy::start(const le_run_options &options) {
  if (async_ != nullptr) fail(LE_INVALID_ARGUMENT, "Async mode is on already.");
  const le_run_options complete = le::complete_options(options, manifest_.sizes);
  auto async = std::make_unique<le::Async>(manifest_.sizes, *engines_, complete, seed_, command_);
  if (has_instruction_) async->set_instruction(control_->io.instruction.data());
  if (fault_ != LE_REASON_NONE) async->latch(fault_);
  auto workers = std::make_unique<le::Workers>(*async, complete);
  run_ = complete;
  async_ = std::move(async);
  workers_ = std::move(workers);
}

void le_policy::stop() {
  if (async_ == nullptr) return;
  workers_.reset();
  const le_reason fault = async_->fault();
  const std::string text = async_->fault_text();
  async_.reset();
  reset(seed_);
  fault_ = fault;
  fault_text_ = text;
}

bool le_policy::tick(uint64_t now_ns, float *action, uint32_t count, le_tick_info *info) noexcept {
  if (async_ == nullptr || action == nullptr || count != manifest_.sizes.action_dim) return false;
  async_->tick(now_ns, action, info);
  return true;
}

void le_policy::set_chunks_per_plan(uint32_t chunks) {
  check_async();
  if (chunks < 1 || chunks > manifest_.sizes.chunks_per_plan) {
    fail(LE_INVALID_ARGUMENT, "chunks_per_plan is %u; it must be 1 to %u.", chunks,
         manifest_.sizes.chunks_per_plan);
  }
  async_->set_chunks_per_plan(chunks);
}

bool le_policy::work(uint32_t work) {
  check_async();
  if ((run_.flags & LE_RUN_MANUAL) == 0) {
    fail(LE_INVALID_ARGUMENT, "The threads work by themselves: start with LE_RUN_MANUAL.");
  }
  switch (work) {
    case LE_WORK_PLAN_BEGIN:
      return async_->begin_plan() && async_->run_plan();
    case LE_WORK_PLAN_CLAIM:
      return async_->begin_plan();
    case LE_WORK_PLAN_RUN:
      return async_->run_plan();
    case LE_WORK_PLAN_END:
      return async_->finish_plan();
    case LE_WORK_REFINE_BEGIN:
      return async_->begin_chunk() && async_->run_chunk();
    case LE_WORK_REFINE_CLAIM:
      return async_->begin_chunk();
    case LE_WORK_REFINE_RUN:
      return async_->run_chunk();
    case LE_WORK_REFINE_END:
      return async_->finish_chunk();
    default:
      fail(LE_INVALID_ARGUMENT, "work %u is unknown.", work);
  }
}

void le_policy::last_plan(int32_t *intent, uint64_t count) const {
  check_planner();
  check_count("plan_count", count, manifest_.sizes.plan_count());
  if (intent == nullptr) fail(LE_INVALID_ARGUMENT, "intent is NULL.");
  const std::vector<int32_t> *plan = plan_step_ < 0 ? nullptr : &control_->io.plan_intent;
  if (async_ != nullptr) {
    plan = (run_.flags & LE_RUN_MANUAL) == 0 ? nullptr : async_->last_plan();
  }
  if (plan == nullptr) fail(LE_INVALID_ARGUMENT, "There is no plan to copy.");
  std::copy(plan->begin(), plan->end(), intent);
}

void le_policy::stats(le_stats_info *stats) const {
  check_async();
  async_->stats(stats);
}

std::string le_policy::fault_text() {
  if (async_ != nullptr) return async_->fault_text();
  return fault_text_.empty() ? le::describe(fault_) : fault_text_;
}

void le_policy::plan(const le_observation &observation, const int64_t *tokens, uint32_t token_count,
                     int32_t *intent, float *margin, uint64_t count) {
  check_planner();
  check_observation(observation, 1);
  check_tokens(tokens, token_count);
  check_count("plan_count", count, manifest_.sizes.plan_count());
  if (intent == nullptr || margin == nullptr) fail(LE_INVALID_ARGUMENT, "An output is NULL.");
  if (!le::all_finite(observation.state, observation.state_count)) {
    fail(LE_NOT_FINITE, "The observed state is not finite.");
  }
  le::Io &io = direct_->io;
  load(io, observation);
  std::copy_n(tokens, token_count, io.instruction.begin());
  check_result(le::checked_plan(*direct_, manifest_.sizes.bins));
  std::copy_n(io.plan_intent.begin(), count, intent);
  std::copy_n(io.margin.begin(), count, margin);
}

void le_policy::refine(const le_observation &observation, const int32_t *intent, const float *noise,
                       float *actions, uint64_t count) {
  const le::Sizes &sizes = manifest_.sizes;
  le::Io &io = direct_->io;
  check_observation(observation, sizes.observation_steps);
  check_count("chunk_count", count, sizes.chunk_count());
  if ((intent == nullptr) == sizes.plans() || (noise == nullptr) != io.noise.empty() ||
      actions == nullptr) {
    fail(LE_INVALID_ARGUMENT,
         "An argument is NULL that this policy needs, or is there that it does not take.");
  }
  if (sizes.plans() && !le::all_in_range(intent, count, sizes.bins)) {
    fail(LE_INVALID_ARGUMENT, "An intent lies outside [0, %u).", sizes.bins);
  }
  if (!sizes.plans() && has_words() && !has_instruction_) {
    fail(LE_INVALID_ARGUMENT, "This policy needs an instruction first: le_set_instruction.");
  }
  if (!le::all_finite(observation.state, observation.state_count) ||
      !le::all_finite(noise, io.noise.size())) {
    fail(LE_NOT_FINITE, "The observed state or the noise is not finite.");
  }
  load(io, observation);
  std::copy_n(intent, io.chunk_intent.size(), io.chunk_intent.begin());
  std::copy_n(noise, io.noise.size(), io.noise.begin());
  if (!sizes.plans()) io.instruction = control_->io.instruction;
  check_result(le::checked_refine(*direct_));
  std::copy_n(io.actions.begin(), count, actions);
}
