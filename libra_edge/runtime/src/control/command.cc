#include "control/command.h"

#include <algorithm>
#include <cmath>

namespace le {

Command::Command(const std::vector<ActionLimit> &limits) : limits_(limits), dims_(limits.size()) {
  for (size_t d = 0; d < limits.size(); ++d) {
    dims_[d].last = std::clamp(0.0f, limits[d].lower, limits[d].upper);
  }
}

bool Command::beginning(size_t d, const float *state, float *place) const {
  const ActionLimit &of = limits_[d];
  const bool known = of.delta || sent_;
  *place = dims_[d].last;
  if (state == nullptr || of.measured_by < 0) return known;
  const float measured = std::clamp(state[of.measured_by], of.lower, of.upper);
  if (!known || std::abs(measured - *place) > of.max_step_change) *place = measured;
  return true;
}

float Command::reach(size_t d, float inside, float last) const {
  const ActionLimit &of = limits_[d];
  const float low = std::max(of.lower, last - of.max_step_change);
  const float high = std::min(of.upper, last + of.max_step_change);
  if (std::isinf(of.max_acceleration) && std::isinf(of.max_jerk)) {
    return std::clamp(inside, low, high);
  }
  const Bounds bounds = {of.lower, of.upper, of.max_step_change, of.max_acceleration, of.max_jerk};
  const Motion motion = {last, dims_[d].change, dims_[d].bend};
  return static_cast<float>(next_position(bounds, motion, inside, low, high));
}

void Command::limit(size_t d, float wanted, const float *state, Limited *limited) {
  const ActionLimit &of = limits_[d];
  Dim &dim = dims_[d];
  const float inside = std::clamp(wanted, of.lower, of.upper);
  const uint64_t bit = d < 64 ? uint64_t{1} << d : 0;
  if (inside != wanted) {
    limited->flags |= LE_STEP_CLAMPED;
    limited->clamped_mask |= bit;
    ++limited->clamped_count;
  }
  float last = dim.last;
  const bool known = !rests_ || beginning(d, state, &last);
  dim.next = known ? reach(d, inside, last) : inside;
  dim.next_change = known ? static_cast<double>(dim.next) - static_cast<double>(last) : 0.0;
  dim.slowed = dim.next != inside;
  if (dim.slowed) {
    limited->flags |= LE_STEP_SLOWED;
    limited->slowed_mask |= bit;
  }
  const bool late = dim.slowed && !(dim.arriving || rests_);
  if ((inside != wanted || late) && of.fault) limited->fault = true;
}

Limited Command::send(const float *wanted, const float *state, float *action) {
  Limited limited;
  for (size_t d = 0; d < dims_.size(); ++d) limit(d, wanted[d], state, &limited);
  if (limited.fault) return limited;
  for (size_t d = 0; d < dims_.size(); ++d) {
    Dim &dim = dims_[d];
    action[d] = dim.last = dim.next;
    dim.bend = dim.next_change - dim.change;
    dim.change = dim.next_change;
    dim.arriving = dim.slowed && (dim.arriving || rests_);
  }
  sent_ = true;
  rests_ = false;
  return limited;
}

uint32_t Command::hold(float *action) {
  uint32_t flags = 0;
  for (size_t d = 0; d < dims_.size(); ++d) {
    Dim &dim = dims_[d];
    action[d] = limits_[d].delta ? 0.0f : dim.last;
    if (!limits_[d].delta && !sent_) flags |= LE_STEP_NO_COMMAND;
    if (sent_) dim.last = action[d];
    dim.change = dim.bend = 0.0;
  }
  rests_ = true;
  return flags;
}

}  // namespace le
