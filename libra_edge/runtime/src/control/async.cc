#include "control/async.h"

#include <algorithm>
#include <bit>

#include "engine/checks.h"
#include "error.h"

namespace le {
namespace {

// Steps of a chunk that are queued: those executed and, where more are predicted, those that the
// next chunk is blended with.
uint32_t queued_rows(const le_run_options &options, const Sizes &sizes) {
  return std::min(sizes.predicted, sizes.plans() ? sizes.chunk : sizes.chunk + options.blend_steps);
}

// New chunks begin at most refine_ahead steps from now and rows - overlap steps apart; where that
// is chosen, at most H steps and those shared from now, and eighths of H apart.
size_t queue_capacity(const le_run_options &options, const Sizes &sizes, uint32_t rows) {
  const uint32_t apart = rows - options.blend_steps;
  const size_t asked = options.refine_ahead_steps / apart;
  const size_t chosen = std::max<size_t>((sizes.chunk + options.blend_steps) / apart, 16);
  return std::bit_ceil((options.refine_ahead_steps == 0 ? chosen : asked) + 4);
}

Seen nothing(const Sizes &sizes) {
  return {std::vector<uint8_t>(sizes.seen_bytes()), std::vector<float>(sizes.seen_numbers()), 0, 0};
}

}  // namespace

Async::Async(const Sizes &sizes, const Engines &engines, const le_run_options &options,
             uint64_t seed, Command &command)
    : sizes_(sizes),
      options_(options),
      rows_(queued_rows(options, sizes)),
      command_(command),
      seen_(nothing(sizes)),
      state_(std::vector<float>(sizes.state_dim)),
      instruction_(std::vector<int64_t>(sizes.instruction_length)),
      seed_(seed),
      intents_(sizes.plan_steps, sizes.action_dim),
      pace_(sizes, options),
      planner_(engines),
      refiner_(engines),
      queue_(queue_capacity(options, sizes, rows_), rows_, sizes.action_dim),
      chunks_per_plan_(options.chunks_per_plan),
      scale_(counter_scale()) {
  last_chunk_.plan_steps.resize(rows_);
  last_chunk_.actions.resize(size_t{rows_} * sizes.action_dim);
  instructed_ = sizes.instruction_length == 0;
}

// ---- observer and instructor --------------------------------------------------------------------

void Async::observe(const le_observation &observation) {
  Seen &slot = seen_.writable();
  const Seen &before = seen_.newest();
  const bool first = observation_.load(std::memory_order_relaxed) == 0;
  slot.step = step_.load(std::memory_order_acquire);
  const uint64_t gap = slot.step - before.step;
  const uint32_t steps = sizes_.observation_steps;
  look(before.images.data(), first, gap, steps, sizes_.image_bytes(), observation.images,
       slot.images.data());
  look(before.state.data(), first, gap, steps, sizes_.state_dim, observation.state,
       slot.state.data());
  std::copy_n(observation.state, sizes_.state_dim, state_.writable().begin());
  state_.publish();
  observed_step_.store(slot.step, std::memory_order_relaxed);
  observation_gap_.store(first ? UINT64_MAX : gap, std::memory_order_relaxed);
  slot.number = ++observations_;
  const uint64_t number = slot.number;
  seen_.publish();
  timestamp_ns_.store(observation.timestamp_ns, std::memory_order_release);
  observation_.store(number, std::memory_order_release);
}

void Async::set_instruction(const int64_t *tokens) {
  std::vector<int64_t> &slot = instruction_.writable();
  std::copy_n(tokens, slot.size(), slot.begin());
  instruction_.publish();
  instructed_.store(true, std::memory_order_release);
}

// ---- planner ------------------------------------------------------------------------------------

bool Async::observed(Job &job, size_t reader) {
  Io &io = job.session->io;
  const uint64_t known = reader == kPlannerReads ? asked_observation_ : 0;
  bool fresh = false;
  seen_.read(reader, [&](const Seen &seen) {
    fresh = seen.number > known;
    if (!fresh) return;
    const uint64_t now = step_.load(), gap = now > seen.step ? now - seen.step : 0;
    const uint32_t steps = sizes_.observation_steps;
    look_back(seen.images.data(), gap, steps, sizes_.image_bytes(), io.images.data());
    look_back(seen.state.data(), gap, steps, sizes_.state_dim, io.state.data());
    if (!sizes_.plans()) job.plan_step = static_cast<int64_t>(seen.step);
    job.seen = seen.step;
    if (reader != kPlannerReads) return;
    job.step = seen.step;
    asked_observation_ = seen.number;
  });
  return fresh;
}

// Under the lock, as a reset is: what was seen before it must not pass for something seen after.
bool Async::ready() const {
  return fault_.load() == LE_REASON_NONE && observation_.load() != 0 && instructed_.load();
}

Now Async::now() const {
  return {step_.load(), queue_end_, observed_step_.load(), observation_gap_.load()};
}

bool Async::begin_plan() {
  if (!sizes_.plans() || planner_.active) return false;
  {
    const std::scoped_lock locked(lock_);
    if (!ready() || observation_.load() <= asked_observation_) return false;
    const uint64_t used = uint64_t{chunks_per_plan_.load()} * sizes_.chunk;
    if (!pace_.plan_due(now(), intents_, used)) return false;
    pace_.plan_begins(step_.load());
    planner_.epoch = epoch_;
  }
  // Outside the lock: the refiner need not wait for images to be copied. After a reset meanwhile
  // the epoch no longer fits and the plan is dropped.
  if (!observed(planner_, kPlannerReads)) {
    const std::scoped_lock locked(lock_);
    return pace_.plan_ends(step_.load()), false;
  }
  instruction_.read(0, [&](const std::vector<int64_t> &tokens) {
    std::copy(tokens.begin(), tokens.end(), planner_.session->io.instruction.begin());
  });
  planner_.active = true;
  planner_.ran = false;
  planner_.since.store(elapsed_ns_.load() + 1);
  return true;
}

bool Async::run_plan() {
  if (!planner_.active) return false;
  const uint64_t start_ns = monotonic_ns();
  planner_.text.clear();
  try {
    planner_.fault = checked_plan(*planner_.session, sizes_.bins);
  } catch (const Error &error) {
    planner_.fault = LE_REASON_PLANNER_FAILED;
    planner_.text = error.text;
  }
  planner_ns_.add(monotonic_ns() - start_ns);
  return planner_.ran = true;
}

bool Async::finish_plan() {
  if (!planner_.active || !planner_.ran) return false;
  const std::scoped_lock locked(lock_);
  planner_.active = false;
  planner_.since.store(0);
  pace_.plan_ends(step_.load());
  if (planner_.epoch != epoch_) return bump(dropped_plans_), true;
  if (planner_.fault != LE_REASON_NONE) return fail_with(planner_), true;
  take_plan(planner_.step, planner_.session->io.plan_intent.data());
  return true;
}

void Async::take_plan(uint64_t plan_step, const int32_t *intents) {
  const uint64_t now = step_.load();
  const uint64_t steps = uint64_t{chunks_per_plan_.load()} * sizes_.chunk;
  const bool old = now > plan_step + options_.max_plan_age_steps;
  if (old || !intents_.replace(static_cast<int64_t>(plan_step), intents, steps, now)) {
    return bump(dropped_plans_);
  }
  plan_end_.store(intents_.end());
  bump(plans_);
}

void Async::fail_with(const Job &job) {
  if (fault_.load() == LE_REASON_NONE) fault_text_ = job.text;
  latch(job.fault);
}

// ---- the rest -----------------------------------------------------------------------------------

void Async::reset(uint64_t seed) {
  const std::scoped_lock locked(lock_);
  ++epoch_;
  seed_ = seed;
  intents_.clear();
  queue_.clear();
  queue_end_ = next_chunk_ = 0;
  pace_.reset();
  plan_end_.store(0);
  observation_.store(0);
  last_observation_ = 0;
  step_.store(0);
  fault_text_.clear();
  fault_.store(LE_REASON_NONE);
  last_state_ = LE_HOLD;
}

std::string Async::fault_text() {
  const std::scoped_lock locked(lock_);
  const le_reason fault = fault_.load();
  return fault_text_.empty() ? describe(fault) : fault_text_;
}

void Async::stats(le_stats_info *to) {
  {
    const std::scoped_lock locked(lock_);
    to->refine_ahead_steps = static_cast<uint32_t>(pace_.ahead().steps());
    to->refine_ahead_reason = pace_.ahead().reason();
    to->refiner_p99_steps = pace_.ahead().p99();
  }
  tick_ns_.read(&to->tick_ns);
  planner_ns_.read(&to->planner_ns);
  refiner_ns_.read(&to->refiner_ns);
  plan_age_.read(&to->plan_age_steps);
  queue_steps_.read(&to->queue_steps);
  to->running_ticks = running_.load();
  to->hold_ticks = hold_.load();
  to->fault_ticks = faulted_.load();
  to->ticks = to->running_ticks + to->hold_ticks + to->fault_ticks;
  to->holds = holds_.load();
  to->faults = faults_.load();
  to->underruns = underruns_.load();
  to->clamped_ticks = clamped_.load();
  to->slowed_ticks = slowed_.load();
  to->plans = plans_.load();
  to->dropped_plans = dropped_plans_.load();
  to->chunks = chunks_.load();
  to->dropped_chunks = dropped_chunks_.load();
  for (size_t i = 0; i < hold_reasons_.size(); ++i) to->hold_reason_ticks[i] = hold_reasons_[i];
}

}  // namespace le
