#include "control/run_options.h"

#include "error.h"

namespace le {
namespace {

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

}  // namespace

uint64_t complete_age(uint64_t max_observation_age_ns) {
  fill_default(&max_observation_age_ns, kSecond / 2);
  check_range("max_observation_age_ns", max_observation_age_ns, 1, kMostNs);
  return max_observation_age_ns;
}

le_run_options complete_options(const le_run_options &from, const Sizes &sizes) {
  le_run_options o = from;
  if ((o.flags & ~(LE_RUN_LOCK_MEMORY | LE_RUN_MANUAL)) != 0 || o.reserved0 != 0) {
    fail(LE_INVALID_ARGUMENT, "options has an unknown flag or a reserved field that is not zero.");
  }
  fill_default(&o.chunks_per_plan, sizes.chunks_per_plan);
  fill_default(&o.refill_at, 1u);
  fill_default(&o.max_plan_age_steps,
               sizes.plans() ? sizes.plan_steps : 2 * (sizes.chunk + sizes.predicted));
  o.max_observation_age_ns = complete_age(o.max_observation_age_ns);
  fill_default(&o.engine_timeout_ns, 2 * kSecond);
  fill_default(&o.poll_ns, kSecond / 5000);
  check_range("chunks_per_plan", o.chunks_per_plan, 1, sizes.chunks_per_plan);
  check_range("refill_at", o.refill_at, 1, sizes.chunks_per_plan);
  check_range("refine_ahead_steps", o.refine_ahead_steps, 0, sizes.plan_steps);
  check_range("blend", o.blend, LE_BLEND_NONE, LE_BLEND_FREEZE);
  check_range("blend_steps", o.blend_steps, o.blend == LE_BLEND_NONE ? 0 : 1,
              o.blend == LE_BLEND_NONE ? 0 : sizes.predicted - 1);
  check_range("frozen_steps", o.frozen_steps, 0, o.blend == LE_BLEND_FREEZE ? o.blend_steps : 0);
  check_range("planner_priority", o.planner_priority, 0, 99);
  check_range("refiner_priority", o.refiner_priority, 0, 99);
  check_range("engine_timeout_ns", o.engine_timeout_ns, 1, kMostNs);
  check_range("poll_ns", o.poll_ns, 1, kSecond);
  return o;
}

}  // namespace le
