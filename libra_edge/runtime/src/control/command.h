// The last step before the robot: limits of every dimension, and the action that holds it still.
#pragma once

#include <cstdint>
#include <vector>

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

// Remembers what was sent, as limits on changes need it. No allocation after construction.
class Command {
 public:
  explicit Command(const std::vector<ActionLimit> &limits);

  // Writes the action nearest to `wanted` within all limits; on a fault, nothing.
  Limited send(const float *wanted, float *action);
  // Writes the hold action; returns LE_STEP_NO_COMMAND where there is nothing to keep, or 0.
  uint32_t hold(float *action);

 private:
  float limit(size_t d, float wanted, Limited *limited) const;
  void remember(const float *action);

  const std::vector<ActionLimit> &limits_;
  bool sent_ = false;
  std::vector<float> last_, change_;
};

}  // namespace le
