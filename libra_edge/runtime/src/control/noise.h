// Counter-based standard normal noise, bit for bit that of libra_edge/policy/execution/noise.py.
#pragma once

#include <cstdint>

namespace le {

void chunk_noise(uint64_t seed, uint64_t chunk, float *noise, uint64_t count);

}  // namespace le
