// le_run_options: defaults and bounds.
#pragma once

#include "engine/tensor.h"
#include "libra_edge.h"

namespace le {

// Throws LE_INVALID_ARGUMENT; returns the options with every default filled in.
le_run_options complete_options(const le_run_options &options, const Sizes &sizes);

// The same for a le_open_options.max_observation_age_ns alone.
uint64_t complete_age(uint64_t max_observation_age_ns);

}  // namespace le
