#include "control/pace.h"

#include <algorithm>

namespace le {

RefineAhead::RefineAhead(const le_run_options &options, uint32_t chunk)
    : asked_(options.refine_ahead_steps),
      chunk_(chunk),
      shared_(options.blend_steps),
      steps_(asked_ == 0 ? chunk + shared_ : asked_),
      reason_(asked_ == 0 ? LE_AHEAD_NOT_MEASURED : LE_AHEAD_ASKED) {}

void RefineAhead::add(uint64_t steps, bool planner_beside) {
  calls_[count_++ % kWindow] = {steps, planner_beside};
  p99_ = p99_of(true);
  if (!automatic()) return;
  steps_ = std::min<uint64_t>(p99_, chunk_) + shared_;
  reason_ = p99_ > chunk_          ? LE_AHEAD_SLOWER_THAN_A_CHUNK
            : p99_of(false) < p99_ ? LE_AHEAD_PLANNER
                                   : LE_AHEAD_REFINER;
}

// Of all calls in the window, or of those without the planner beside them.
uint64_t RefineAhead::p99_of(bool all) const {
  std::array<uint64_t, kWindow> steps;
  size_t count = 0;
  for (size_t i = 0; i < std::min<uint64_t>(count_, kWindow); ++i) {
    if (all || !calls_[i].planner_beside) steps[count++] = calls_[i].steps;
  }
  if (count == 0) return 0;
  const size_t rank = count - count / 100 - 1;
  std::nth_element(steps.begin(), steps.begin() + rank, steps.begin() + count);
  return steps[rank];
}

Pace::Pace(const Sizes &sizes, const le_run_options &options)
    : chunk_(sizes.chunk),
      plan_steps_(sizes.plan_steps),
      refill_(uint64_t{options.refill_at} * sizes.chunk),
      shared_(options.blend_steps),
      max_plan_age_(options.max_plan_age_steps),
      plans_(sizes.plans()),
      ahead_(options, sizes.chunk) {}

// What engine calls took stays: engines are no faster after a reset than before.
void Pace::reset() {
  lasted_ = {};
  ended_at_ = 0;
  plan_began_.reset();
  coming_end_ = 0;
  yields_to_ = 0;
}

uint64_t Pace::there(const Now &now) const {
  return now.step + std::max(plan_lasted_[0], plan_lasted_[1]) + ahead_.steps();
}

// Steps that the refiner is expected to take. One slow call says nothing yet about the next, so the
// shorter of the last two counts, and that no longer than a plan.
uint64_t Pace::lead(uint64_t step) const {
  return step <= ended_at_ + plan_steps_ ? std::min(lasted_[0], lasted_[1]) : 0;
}

// The next chunk begins where the queue ends, or where the two are blended, but not before the
// refiner can be back. Where fewer steps are planned it has the last H of them, if one is left by
// then; where a number of steps was asked for, no queued action is given up for that, and else it
// has to add to the queue.
std::optional<uint64_t> Pace::next_chunk(const Now &now, const IntentBuffer &intents) const {
  const uint64_t queued = now.queued();
  if (queued > ahead_.steps()) return {};
  const uint64_t joins = queued > shared_ ? now.queue_end - shared_ : now.step;
  const uint64_t back = now.step + lead(now.step);
  uint64_t first = std::max(joins, back);
  if (!plans_) return first;
  if (intents.plan_step() < 0) return {};
  const uint64_t planned = intents.end();
  const uint64_t last = planned - std::min(planned, chunk_);
  const bool adds = planned >= now.queue_end + (chunk_ + 7) / 8;
  const bool worth_it = queued == 0 || (ahead_.automatic() ? adds : last >= joins);
  if (last < first && planned > back && worth_it) first = last;
  const int64_t age = static_cast<int64_t>(std::max(first, now.step)) - intents.plan_step();
  if (age > static_cast<int64_t>(max_plan_age_) || intents.left(first) < chunk_) return {};
  return first;
}

bool Pace::waits_for_observation(const Now &now) const {
  const bool comes = ahead_.automatic() && now.gap <= 1;
  return comes && now.queue_end == now.step + ahead_.steps() && now.seen < now.step;
}

// A step in which no observation came counts as one that the call took: it was waited for.
Pace::Begun Pace::chunk_begins(const Now &now, uint64_t first, const IntentBuffer &intents,
                               uint64_t used) {
  const bool came =
      now.seen + 1 == now.step || (now.seen == now.step && (now.gap <= 1 || now.gap == UINT64_MAX));
  const bool missed = now.queue_end + 1 == now.step + ahead_.steps() && !came;
  const uint64_t due = now.step - (ahead_.automatic() && missed ? 1 : 0);
  ++refines_begun_;
  const bool idle = plans_begun_ == plans_ended_;
  if (plans_ && idle && yields_to_ == 0 && needs_plan(now, intents, used)) {
    yields_to_ = refines_begun_;
  }
  coming_end_ = first + chunk_;
  return {due, plans_ended_};
}

void Pace::chunk_dropped() {
  ++refines_ended_;
  coming_end_ = 0;
}

void Pace::chunk_ends(uint64_t step, uint64_t began, const Begun &begun, bool near_next) {
  ++refines_ended_;
  coming_end_ = 0;
  ahead_.add(step - begun.due + near_next, plans_begun_ != begun.plans_ended);
  lasted_ = {step - began, lasted_[0]};
  ended_at_ = step;
}

// Where a number of steps was asked for, when `refill_at` chunks are left. Else also when the next
// chunk is not planned, as soon as a plan of the newest observation would hold it.
bool Pace::plan_due(const Now &now, const IntentBuffer &intents, uint64_t used) const {
  if (!ahead_.automatic()) return intents.left(now.step) <= refill_;
  return needs_plan(now, intents, used) && !yields(now, intents);
}

// Whether the chunks that come due before a plan would be there are not planned: the next one in
// any case, more of them as far as a plan holds them.
bool Pace::needs_plan(const Now &now, const IntentBuffer &intents, uint64_t used) const {
  const uint64_t end = std::max(now.end(), coming_end_), there = this->there(now);
  const uint64_t late = there > end ? there - end : 0;
  const uint64_t most = std::max<uint64_t>(used / chunk_, 2) - 2;
  const uint64_t more = std::min((late + chunk_ - 1) / chunk_, most);
  const int64_t age = static_cast<int64_t>(end) - intents.plan_step();
  const bool planned = intents.plan_step() >= 0 && intents.end() >= end + (1 + more) * chunk_ &&
                       age <= static_cast<int64_t>(max_plan_age_);
  if (planned && intents.left(now.step) > refill_) return false;
  return used <= chunk_ || now.seen + used >= end + chunk_;
}

// A refiner call that is due or under way comes first, but not a second one, nor one during which
// the queue would run dry.
bool Pace::yields(const Now &now, const IntentBuffer &intents) const {
  if (yields_to_ != 0 && yields_to_ <= refines_ended_) return false;
  if (refines_begun_ != refines_ended_) return there(now) <= std::max(now.end(), coming_end_);
  return next_chunk(now, intents).has_value();
}

void Pace::plan_begins(uint64_t step) {
  ++plans_begun_;
  plan_began_ = step;
  yields_to_ = 0;
}

void Pace::plan_ends(uint64_t step) {
  ++plans_ended_;
  if (plan_began_) plan_lasted_ = {step - *plan_began_, plan_lasted_[0]};
  plan_began_.reset();
}

}  // namespace le
