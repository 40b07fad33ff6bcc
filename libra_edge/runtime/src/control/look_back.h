// Policies that look back: one observation of each control step, the newest last.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace le {

// What S steps hold `gap` steps later, while nothing new came: the newest stands for every step
// since. `from` and `to` may be the same. Each of the S observations has `size` elements.
template <typename T>
void look_back(const T *from, uint64_t gap, uint32_t steps, size_t size, T *to) {
  if (gap == 0 && from == to) return;
  for (uint32_t i = 0; i < steps; ++i) {
    const uint64_t source = std::min<uint64_t>(i + std::min<uint64_t>(gap, steps), steps - 1);
    if (from + source * size != to + i * size)
      std::copy_n(from + source * size, size, to + i * size);
  }
}

// The same with an observation that came now; `first`: none is known, so it stands for all.
template <typename T>
void look(const T *seen, bool first, uint64_t gap, uint32_t steps, size_t size, const T *now,
          T *to) {
  if (!first && steps > 1) look_back(seen, gap, steps, size, to);
  for (uint32_t i = first ? 0 : steps - 1; i < steps; ++i) std::copy_n(now, size, to + i * size);
}

}  // namespace le
