// The last step before the robot: limits of every dimension, and the action that holds it still.
#pragma once

#include <cstdint>
#include <vector>

#include "control/braking.h"
#include "libra_edge.h"
#include "release/manifest.h"

namespace le {

// What the limits did to one action. Bit d of a mask stands for dimension d, for d < 64.
struct Limited {
  uint32_t flags = 0;
  uint32_t clamped_count = 0;
  uint64_t clamped_mask = 0;
  uint64_t slowed_mask = 0;
  bool fault = false;
};

// Remembers what was sent, as limits on changes need it. None of the limits gives way to another:
// a dimension brakes in time to come to rest inside its limits, and where it cannot follow, at what
// is wanted. No allocation after construction.
//
// After a hold it begins at rest: a dimension that a state measures where it is, if nothing was
// sent yet or it was moved by more than a step from what was sent, all others at the last command.
// One that was never sent nor measured is bound by position alone. On the way to what is wanted
// then, being slowed is no fault.
class Command {
 public:
  explicit Command(const std::vector<ActionLimit> &limits);

  // Whether the next command begins after a hold, and the state counts.
  bool rests() const { return rests_; }
  // Writes the action nearest to `wanted` within all limits; on a fault, nothing. `state`, the
  // newest one, may be nullptr where it does not count.
  Limited send(const float *wanted, const float *state, float *action);
  // Writes the hold action; returns LE_STEP_NO_COMMAND where there is nothing to keep, or 0.
  uint32_t hold(float *action);

 private:
  struct Dim {
    float last = 0, next = 0;     // sent, and about to be
    double change = 0, bend = 0;  // of what was sent
    double next_change = 0;
    bool arriving = true, slowed = false;  // slowed ever since the last hold; slowed now
  };

  // Where a dimension is as it begins to move; false where nobody knows.
  bool beginning(size_t d, const float *state, float *place) const;
  float reach(size_t d, float inside, float last) const;
  void limit(size_t d, float wanted, const float *state, Limited *limited);

  const std::vector<ActionLimit> &limits_;
  bool sent_ = false, rests_ = true;
  std::vector<Dim> dims_;
};

}  // namespace le
