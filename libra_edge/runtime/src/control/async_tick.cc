// The control loop's part of async mode.

#include <algorithm>

#include "control/async.h"

namespace le {
namespace {

uint64_t distance(uint64_t a, uint64_t b) {
  return a > b ? a - b : b - a;
}

}  // namespace

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
  const bool planned = !sizes_.plans() || queue_end > step || end >= step + sizes_.chunk;
  return refining || planned ? LE_REASON_UNDERRUN : LE_REASON_NO_PLAN;
}

// After a hold the robot sets out from where it is.
Limited Async::send(const float *wanted, float *action) {
  if (!command_.rests()) return command_.send(wanted, nullptr, action);
  Limited limited;
  state_.read(0, [&](const std::vector<float> &state) {
    limited = command_.send(wanted, state.data(), action);
  });
  return limited;
}

void Async::tick(uint64_t now_ns, float *action, le_tick_info *info) {
  const uint64_t begin = counter();
  tick_apart_.store(begin - ticked_at_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  ticked_at_.store(begin, std::memory_order_relaxed);
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
      const Limited limited = send(&chunk->actions[row * sizes_.action_dim], action);
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
        info->seen_steps = step - chunk->seen + 1;
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

}  // namespace le
