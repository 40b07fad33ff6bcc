// What an engine may answer.
#pragma once

#include <cstdint>

#include "engine/engines.h"
#include "libra_edge.h"

namespace le {

bool all_finite(const float *values, uint64_t count);
bool all_in_range(const int32_t *intents, uint64_t count, uint32_t bins);

// Run an engine and look at what it gave. Throw Error where it cannot run.
le_reason checked_plan(Session &session, uint32_t bins);
le_reason checked_refine(Session &session);

// A sentence on a fault; "" where the reason is none.
const char *describe(le_reason fault);

}  // namespace le
