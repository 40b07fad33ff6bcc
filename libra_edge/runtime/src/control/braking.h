// A dimension that has to come to rest within limits on change, acceleration and jerk:
// libra_edge/policy/execution/braking.py does the same arithmetic in the same order.
#pragma once

namespace le {

// Where a command is heading: position, change per step, change of that change.
struct Motion {
  double position = 0, change = 0, bend = 0;
};

// Limits of one dimension; each may be infinite.
struct Bounds {
  double lower, upper, change, bend, jerk;
};

// The next position, from `at`, that is nearest to `wanted` (within lower and upper) such that no
// limit has to give way now or later: from it the dimension can come to rest inside, and where
// `wanted` itself is out of reach, before it. `low` and `high` bound it in any case.
double next_position(const Bounds &bounds, const Motion &at, double wanted, double low,
                     double high);

}  // namespace le
