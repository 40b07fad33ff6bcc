// Planned intents, aligned by control step: IntentBuffer of libra_edge/policy/executor.py.
#pragma once

#include <cstdint>
#include <vector>

namespace le {

class IntentBuffer {
 public:
  IntentBuffer(uint64_t plan_steps, uint32_t dims) : dims_(dims), intents_(plan_steps * dims) {}

  // Takes the first `steps` steps of a plan for plan_step, plan_step + 1, ... Refuses, and stays as
  // it was, for a plan that is not newer than the present one, or lies wholly before `now`.
  bool replace(int64_t plan_step, const int32_t *intents, uint64_t steps, uint64_t now);
  // Steps planned without a gap, from `now` on.
  uint64_t left(uint64_t now) const;
  // Writes the intents of `steps` steps from `first` on; false where one of them is not planned.
  bool take(uint64_t first, uint64_t steps, int32_t *to) const;
  void clear();

  int64_t plan_step() const { return plan_step_; }
  uint64_t end() const { return end_; }

 private:
  uint32_t dims_;
  std::vector<int32_t> intents_;
  int64_t plan_step_ = -1;
  uint64_t end_ = 0;
};

}  // namespace le
