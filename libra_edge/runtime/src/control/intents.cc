#include "control/intents.h"

#include <algorithm>
#include <cstddef>

namespace le {

bool IntentBuffer::replace(int64_t plan_step, const int32_t *intents, uint64_t steps,
                           uint64_t now) {
  const uint64_t end = static_cast<uint64_t>(plan_step) + steps;
  if (plan_step <= plan_step_ || end <= now) return false;
  std::copy_n(intents, steps * dims_, intents_.begin());
  plan_step_ = plan_step;
  end_ = end;
  return true;
}

uint64_t IntentBuffer::left(uint64_t now) const {
  const bool begun = plan_step_ >= 0 && static_cast<uint64_t>(plan_step_) <= now;
  return begun && now < end_ ? end_ - now : 0;
}

bool IntentBuffer::take(uint64_t first, uint64_t steps, int32_t *to) const {
  if (left(first) < steps) return false;
  const uint64_t skipped = first - static_cast<uint64_t>(plan_step_);
  std::copy_n(intents_.begin() + static_cast<ptrdiff_t>(skipped * dims_), steps * dims_, to);
  return true;
}

void IntentBuffer::clear() {
  plan_step_ = -1;
  end_ = 0;
}

}  // namespace le
