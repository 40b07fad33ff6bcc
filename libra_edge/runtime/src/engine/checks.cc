#include "engine/checks.h"

#include <algorithm>
#include <cmath>

namespace le {

bool all_finite(const float *values, uint64_t count) {
  return std::all_of(values, values + count, [](float value) { return std::isfinite(value); });
}

bool all_in_range(const int32_t *intents, uint64_t count, uint32_t bins) {
  return std::all_of(intents, intents + count, [bins](int32_t intent) {
    return intent >= 0 && static_cast<uint32_t>(intent) < bins;
  });
}

le_reason checked_plan(Session &session, uint32_t bins) {
  session.plan();
  const Io &io = session.io;
  if (!all_finite(io.margin.data(), io.margin.size())) return LE_REASON_PLANNER_NOT_FINITE;
  const bool known = all_in_range(io.plan_intent.data(), io.plan_intent.size(), bins);
  return known ? LE_REASON_NONE : LE_REASON_INTENT_OUT_OF_RANGE;
}

le_reason checked_refine(Session &session) {
  session.refine();
  const bool finite = all_finite(session.io.actions.data(), session.io.actions.size());
  return finite ? LE_REASON_NONE : LE_REASON_REFINER_NOT_FINITE;
}

const char *describe(le_reason fault) {
  switch (fault) {
    case LE_REASON_STATE_NOT_FINITE:
      return "The observed state is not finite.";
    case LE_REASON_PLANNER_FAILED:
      return "ONNX Runtime could not run the planner.";
    case LE_REASON_REFINER_FAILED:
      return "ONNX Runtime could not run the refiner.";
    case LE_REASON_PLANNER_NOT_FINITE:
      return "The planner gave a margin that is not finite.";
    case LE_REASON_REFINER_NOT_FINITE:
      return "The refiner gave an action that is not finite.";
    case LE_REASON_INTENT_OUT_OF_RANGE:
      return "The planner gave an intent outside its bins.";
    case LE_REASON_OUT_OF_LIMITS:
      return "The refiner gave an action outside the limits of a dimension that may not be "
             "clamped.";
    default:
      return "";
  }
}

}  // namespace le
