#include "async.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "checks.h"
#include "error.h"
#include "noise.h"

namespace le {
namespace {

constexpr size_t kPlannerReads = 0, kRefinerReads = 1;
constexpr uint64_t kMostNs = uint64_t{1} << 62;  // 146 years
constexpr uint64_t kSecond = 1'000'000'000;

void check_range(const char *name, uint64_t value, uint64_t smallest, uint64_t largest) {
  if (value >= smallest && value <= largest) return;
  fail(LE_INVALID_ARGUMENT, "options->%s is %llu; it must be %llu to %llu.", name,
       static_cast<unsigned long long>(value), static_cast<unsigned long long>(smallest),
       static_cast<unsigned long long>(largest));
}

template <typename T>
void fill_default(T *field, T value) {
  if (*field == 0) *field = value;
}

// New chunks begin at most refine_ahead steps from now and H - overlap steps apart.
size_t queue_capacity(const le_run_options &options, const Sizes &sizes) {
  const uint32_t apart = sizes.chunk - options.blend_steps;
  return std::bit_ceil(size_t{options.refine_ahead_steps} / apart + 4);
}

Seen nothing(const Sizes &sizes) {
  return {std::vector<uint8_t>(sizes.image_bytes()), std::vector<float>(sizes.state_dim), 0, 0};
}

void bump(std::atomic<uint64_t> &number) {
  number.store(number.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

uint64_t distance(uint64_t a, uint64_t b) {
  return a > b ? a - b : b - a;
}

}  // namespace

le_run_options complete_options(const le_run_options &from, const Sizes &sizes) {
  le_run_options o = from;
  if ((o.flags & ~(LE_RUN_LOCK_MEMORY | LE_RUN_MANUAL)) != 0 || o.reserved0 != 0) {
    fail(LE_INVALID_ARGUMENT, "options has an unknown flag or a reserved field that is not zero.");
  }
  fill_default(&o.chunks_per_plan, sizes.chunks_per_plan);
  fill_default(&o.refill_at, 1u);
  fill_default(&o.refine_ahead_steps, sizes.chunk);
  fill_default(&o.max_plan_age_steps, sizes.plan_steps);
  fill_default(&o.max_observation_age_ns, kSecond / 2);
  fill_default(&o.engine_timeout_ns, 2 * kSecond);
  fill_default(&o.poll_ns, kSecond / 5000);
  check_range("chunks_per_plan", o.chunks_per_plan, 1, sizes.chunks_per_plan);
  check_range("refill_at", o.refill_at, 1, sizes.chunks_per_plan);
  check_range("refine_ahead_steps", o.refine_ahead_steps, 1, sizes.plan_steps);
  check_range("blend", o.blend, LE_BLEND_NONE, LE_BLEND_FREEZE);
  check_range("blend_steps", o.blend_steps, o.blend == LE_BLEND_NONE ? 0 : 1,
              o.blend == LE_BLEND_NONE ? 0 : sizes.chunk - 1);
  check_range("frozen_steps", o.frozen_steps, 0, o.blend == LE_BLEND_FREEZE ? o.blend_steps : 0);
  check_range("planner_priority", o.planner_priority, 0, 99);
  check_range("refiner_priority", o.refiner_priority, 0, 99);
  check_range("max_observation_age_ns", o.max_observation_age_ns, 1, kMostNs);
  check_range("engine_timeout_ns", o.engine_timeout_ns, 1, kMostNs);
  check_range("poll_ns", o.poll_ns, 1, kSecond);
  return o;
}

Async::Async(const Sizes &sizes, const Engines &engines, const le_run_options &options,
             uint64_t seed, Command &command)
    : sizes_(sizes),
      options_(options),
      command_(command),
      seen_(nothing(sizes)),
      instruction_(std::vector<int64_t>(sizes.instruction_length)),
      seed_(seed),
      intents_(sizes.plan_steps, sizes.action_dim),
      planner_(engines),
      refiner_(engines),
      queue_(queue_capacity(options, sizes), sizes.chunk, sizes.action_dim),
      chunks_per_plan_(options.chunks_per_plan),
      scale_(counter_scale()) {
  last_chunk_.plan_steps.resize(sizes.chunk);
  last_chunk_.actions.resize(sizes.chunk_count());
}

// ---- the control loop ---------------------------------------------------------------------------

// A clock that jumps back adds nothing: engine calls and observations cannot grow younger.
void Async::advance_clock(uint64_t now_ns) {
  const uint64_t passed = ticked_ && now_ns > last_now_ns_ ? now_ns - last_now_ns_ : 0;
  ticked_ = true;
  last_now_ns_ = now_ns;
  elapsed_ns_.store(elapsed_ns_.load(std::memory_order_relaxed) + passed,
                    std::memory_order_release);
}

// At least the time since a tick first saw it; a time stamp from the future is as bad as an old
// one. Its number is read first: with the time stamp of a newer one it is too old, never too young.
uint64_t Async::observation_age(uint64_t now_ns) {
  const uint64_t number = observation_.load(std::memory_order_acquire);
  const uint64_t elapsed_ns = elapsed_ns_.load(std::memory_order_relaxed);
  if (number == 0) return 0;
  if (number != last_observation_) arrival_ns_ = elapsed_ns;
  last_observation_ = number;
  const uint64_t stamp = timestamp_ns_.load(std::memory_order_acquire);
  return std::max(distance(now_ns, stamp), elapsed_ns - arrival_ns_);
}

bool Async::timed_out(const Job &job) const {
  const uint64_t since = job.since.load(std::memory_order_acquire);
  if (since == 0) return false;
  return elapsed_ns_.load(std::memory_order_relaxed) - (since - 1) > options_.engine_timeout_ns;
}

le_reason Async::hold_reason(uint64_t observation_age_ns) const {
  if (last_observation_ == 0) return LE_REASON_NO_OBSERVATION;
  if (!instructed_.load(std::memory_order_acquire)) return LE_REASON_NO_INSTRUCTION;
  if (timed_out(planner_) || timed_out(refiner_)) return LE_REASON_ENGINE_TIMEOUT;
  if (observation_age_ns > options_.max_observation_age_ns) return LE_REASON_OBSERVATION_TOO_OLD;
  return LE_REASON_NONE;
}

le_reason Async::out_of_actions(uint64_t step, uint64_t queue_end) const {
  const uint64_t end = plan_end_.load(std::memory_order_acquire);
  const bool refining = refiner_.since.load(std::memory_order_acquire) != 0;
  const bool planned = queue_end > step || end >= step + sizes_.chunk;
  return refining || planned ? LE_REASON_UNDERRUN : LE_REASON_NO_PLAN;
}

void Async::tick(uint64_t now_ns, float *action, le_tick_info *info) {
  const uint64_t begin = counter();
  const uint64_t step = step_.load(std::memory_order_relaxed);
  advance_clock(now_ns);
  uint64_t end = step;
  const Chunk *chunk = queue_.at(step, &end);
  info->observation_age_ns = observation_age(now_ns);
  const bool seen = last_observation_ != 0;
  info->observation_timestamp_ns = seen ? timestamp_ns_.load(std::memory_order_relaxed) : 0;
  info->plan_step = info->plan_age_steps = -1;
  le_reason fault = fault_.load(std::memory_order_acquire);
  le_reason hold = hold_reason(info->observation_age_ns);
  if (fault == LE_REASON_NONE && hold == LE_REASON_NONE && chunk == nullptr) {
    hold = out_of_actions(step, end);
  }
  if (fault == LE_REASON_NONE && hold == LE_REASON_NONE) {
    const uint64_t row = step - chunk->first;
    const int64_t age = static_cast<int64_t>(step) - chunk->plan_steps[row];
    if (age > static_cast<int64_t>(options_.max_plan_age_steps)) {
      hold = LE_REASON_NO_PLAN;
    } else {
      const Limited limited = command_.send(&chunk->actions[row * sizes_.action_dim], action);
      info->flags = limited.flags;
      info->clamped_count = limited.clamped_count;
      info->clamped_mask = limited.clamped_mask;
      info->slowed_mask = limited.slowed_mask;
      if (limited.fault) {
        latch(fault = LE_REASON_OUT_OF_LIMITS);
      } else {
        info->chunk = chunk->number;
        info->plan_step = chunk->plan_steps[row];
        info->plan_age_steps = age;
      }
    }
  }
  info->state = fault != LE_REASON_NONE ? LE_FAULT : hold != LE_REASON_NONE ? LE_HOLD : LE_RUNNING;
  info->reason = fault != LE_REASON_NONE ? fault : hold;
  if (info->state != LE_RUNNING) info->flags |= command_.hold(action);
  info->step = step;
  info->queue_steps = static_cast<uint32_t>(end > step + 1 ? end - step - 1 : 0);
  info->realtime_asked = asked_;
  info->realtime_got = got_;
  info->chunks_seen = queue_.pushed();
  step_.store(step + 1, std::memory_order_release);
  count(*info);
  tick_ns_.add(scale_.to_ns(counter() - begin));
}

void Async::count(const le_tick_info &info) {
  const bool began = info.state != last_state_;
  if (info.state == LE_RUNNING) {
    bump(running_);
    plan_age_.add(static_cast<uint64_t>(info.plan_age_steps));
    if ((info.flags & LE_STEP_CLAMPED) != 0) bump(clamped_);
    if ((info.flags & LE_STEP_SLOWED) != 0) bump(slowed_);
  } else if (info.state == LE_HOLD) {
    bump(hold_);
    bump(hold_reasons_[info.reason]);
    if (began) bump(holds_);
    const bool underrun = info.reason == LE_REASON_UNDERRUN;
    if (underrun && last_state_ == LE_RUNNING) bump(underruns_);
  } else {
    bump(faulted_);
    if (began) bump(faults_);
  }
  queue_steps_.add(info.queue_steps);
  last_state_ = info.state;
}

void Async::latch(le_reason fault) {
  uint32_t none = LE_REASON_NONE;
  fault_.compare_exchange_strong(none, fault);
}

// ---- observer and instructor --------------------------------------------------------------------

void Async::observe(const le_observation &observation) {
  Seen &slot = seen_.writable();
  std::copy_n(observation.images, slot.images.size(), slot.images.begin());
  std::copy_n(observation.state, slot.state.size(), slot.state.begin());
  slot.step = step_.load(std::memory_order_acquire);
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
    std::copy(seen.images.begin(), seen.images.end(), io.images.begin());
    std::copy(seen.state.begin(), seen.state.end(), io.state.begin());
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

bool Async::begin_plan() {
  if (planner_.active) return false;
  {
    const std::scoped_lock locked(lock_);
    if (!ready()) return false;
    const uint64_t left = intents_.left(step_.load());
    if (left > uint64_t{options_.refill_at} * sizes_.chunk) return false;
    planner_.epoch = epoch_;
  }
  // Outside the lock: the refiner need not wait for images to be copied. After a reset meanwhile
  // the epoch no longer fits and the plan is dropped.
  if (!observed(planner_, kPlannerReads)) return false;
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

// ---- refiner ------------------------------------------------------------------------------------

// Steps that the refiner is expected to take. One slow call says nothing yet about the next, so the
// shorter of the last two counts, and that no longer than a plan.
uint64_t Async::refiner_lead(uint64_t now) const {
  return now <= refined_step_ + sizes_.plan_steps ? std::min(refine_steps_[0], refine_steps_[1])
                                                  : 0;
}

// The next chunk begins where the queue ends, but not before the refiner can be back. Where fewer
// steps are planned it has the last H of them, if one is left by then; but no queued action is
// given up for that.
bool Async::take_intents(uint64_t now, uint64_t queued) {
  const uint64_t joins = queued > options_.blend_steps ? queue_end_ - options_.blend_steps : now;
  const uint64_t back = now + refiner_lead(now);
  const uint64_t planned = intents_.end();
  const uint64_t last = planned - std::min<uint64_t>(planned, sizes_.chunk);
  uint64_t first = std::max(joins, back);
  if (last < first && planned > back && (queued == 0 || last >= joins)) first = last;
  const int64_t age = static_cast<int64_t>(std::max(first, now)) - intents_.plan_step();
  if (age > static_cast<int64_t>(options_.max_plan_age_steps)) return false;
  refiner_.step = first;
  return intents_.take(first, sizes_.chunk, refiner_.session->io.chunk_intent.data());
}

bool Async::begin_chunk() {
  if (refiner_.active) return false;
  {
    const std::scoped_lock locked(lock_);
    if (!ready()) return false;
    const uint64_t now = step_.load();
    const uint64_t queued = queue_end_ > now ? queue_end_ - now : 0;
    if (queued > options_.refine_ahead_steps || queue_.back() == nullptr) return false;
    if (!take_intents(now, queued)) return false;
    Io &io = refiner_.session->io;
    chunk_noise(seed_, next_chunk_, io.noise.data(), io.noise.size());
    refiner_.epoch = epoch_;
    refiner_.began = now;
    refiner_.plan_step = intents_.plan_step();
  }
  observed(refiner_, kRefinerReads);
  refiner_.active = true;
  refiner_.ran = false;
  refiner_.since.store(elapsed_ns_.load() + 1);
  return true;
}

bool Async::run_chunk() {
  if (!refiner_.active) return false;
  const uint64_t start_ns = monotonic_ns();
  refiner_.text.clear();
  try {
    refiner_.fault = checked_refine(*refiner_.session);
  } catch (const Error &error) {
    refiner_.fault = LE_REASON_REFINER_FAILED;
    refiner_.text = error.text;
  }
  refiner_ns_.add(monotonic_ns() - start_ns);
  return refiner_.ran = true;
}

bool Async::finish_chunk() {
  if (!refiner_.active || !refiner_.ran) return false;
  const std::scoped_lock locked(lock_);
  refiner_.active = false;
  refiner_.since.store(0);
  if (refiner_.epoch != epoch_) return true;
  if (refiner_.fault != LE_REASON_NONE) return fail_with(refiner_), true;
  const uint64_t now = step_.load(), number = next_chunk_++;
  refine_steps_ = {now - refiner_.began, refine_steps_[0]};
  refined_step_ = now;
  Chunk *chunk = queue_.back();
  if (chunk == nullptr || refiner_.step + sizes_.chunk <= now) {
    return bump(dropped_chunks_), true;
  }
  chunk->number = number;
  chunk->first = refiner_.step;
  chunk->actions = refiner_.session->io.actions;
  std::fill(chunk->plan_steps.begin(), chunk->plan_steps.end(), refiner_.plan_step);
  blend(*chunk, now);
  last_chunk_ = *chunk;
  queue_end_ = chunk->end();
  queue_.push();
  bump(chunks_);
  return true;
}

// Fades the steps that the last chunk has as well: what is frozen, or past already, stays as it
// was; then the weight of the new action grows step by step.
void Async::blend(Chunk &chunk, uint64_t now) const {
  if (chunk.first >= queue_end_ || options_.blend == LE_BLEND_NONE) return;
  const uint64_t common = queue_end_ - chunk.first;
  const uint64_t past = now > chunk.first ? now - chunk.first : 0;
  const uint64_t frozen = std::min(common, std::max<uint64_t>(past, options_.frozen_steps));
  const uint64_t skipped = chunk.first - last_chunk_.first;
  for (uint64_t i = 0; i < common; ++i) {
    const float weight =
        i < frozen ? 0.0f
                   : static_cast<float>(i - frozen + 1) / static_cast<float>(common - frozen + 1);
    for (uint32_t d = 0; d < sizes_.action_dim; ++d) {
      float &value = chunk.actions[i * sizes_.action_dim + d];
      const float before = last_chunk_.actions[(i + skipped) * sizes_.action_dim + d];
      value = before + weight * (value - before);
    }
    chunk.plan_steps[i] = std::min(chunk.plan_steps[i], last_chunk_.plan_steps[i + skipped]);
  }
}

// ---- the rest -----------------------------------------------------------------------------------

void Async::reset(uint64_t seed) {
  const std::scoped_lock locked(lock_);
  ++epoch_;
  seed_ = seed;
  intents_.clear();
  queue_.clear();
  queue_end_ = next_chunk_ = 0;
  refine_steps_ = {};
  refined_step_ = 0;
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

void Async::stats(le_stats_info *to) const {
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
