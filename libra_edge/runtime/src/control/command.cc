#include "control/command.h"

#include <algorithm>

namespace le {

Command::Command(const std::vector<ActionLimit> &limits)
    : limits_(limits), last_(limits.size()), change_(limits.size()) {
  for (size_t d = 0; d < limits.size(); ++d) {
    last_[d] = std::clamp(0.0f, limits[d].lower, limits[d].upper);
  }
}

// Position and change per step are hard; where the change of the change cannot be kept with them,
// it gives way. The first command has no predecessor and is bound by position alone.
float Command::limit(size_t d, float wanted, Limited *limited) const {
  const ActionLimit &of = limits_[d];
  const float inside = std::clamp(wanted, of.lower, of.upper);
  const uint64_t bit = d < 64 ? uint64_t{1} << d : 0;
  if (inside != wanted) {
    limited->flags |= LE_STEP_CLAMPED;
    limited->clamped_mask |= bit;
    ++limited->clamped_count;
  }
  float value = inside;
  if (sent_) {
    const float low = std::max(of.lower, last_[d] - of.max_step_change);
    const float high = std::min(of.upper, last_[d] + of.max_step_change);
    const float drift = last_[d] + change_[d];
    const float soft_low = std::clamp(drift - of.max_acceleration, low, high);
    const float soft_high = std::clamp(drift + of.max_acceleration, low, high);
    value = std::clamp(inside, soft_low, soft_high);
  }
  if (value != inside) {
    limited->flags |= LE_STEP_SLOWED;
    limited->slowed_mask |= bit;
  }
  if (value != wanted && of.fault) limited->fault = true;
  return value;
}

Limited Command::send(const float *wanted, float *action) {
  Limited limited;
  for (size_t d = 0; d < last_.size(); ++d) limit(d, wanted[d], &limited);
  if (limited.fault) return limited;
  Limited ignored;
  for (size_t d = 0; d < last_.size(); ++d) action[d] = limit(d, wanted[d], &ignored);
  remember(action);
  sent_ = true;
  return limited;
}

void Command::remember(const float *action) {
  for (size_t d = 0; d < last_.size(); ++d) {
    change_[d] = sent_ ? action[d] - last_[d] : 0.0f;
    last_[d] = action[d];
  }
}

uint32_t Command::hold(float *action) {
  uint32_t flags = 0;
  for (size_t d = 0; d < last_.size(); ++d) {
    action[d] = limits_[d].delta ? 0.0f : last_[d];
    if (!limits_[d].delta && !sent_) flags |= LE_STEP_NO_COMMAND;
  }
  if (sent_) remember(action);
  return flags;
}

}  // namespace le
