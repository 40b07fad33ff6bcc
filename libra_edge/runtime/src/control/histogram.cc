#include "control/histogram.h"

#include <algorithm>

namespace le {

uint64_t Histogram::upper(size_t index) {
  if (index < kSub) return index;
  const unsigned shift = static_cast<unsigned>(index / kSub) - 1;
  const uint64_t first = (uint64_t{kSub} + index % kSub) << shift;
  return first + ((uint64_t{1} << shift) - 1);
}

void Histogram::read(le_histogram *to) const {
  std::array<uint64_t, kBuckets> counts;
  uint64_t total = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    total += counts[i] = buckets_[i].load(std::memory_order_relaxed);
  }
  // What a writer adds meanwhile must not make the parts disagree.
  *to = {};
  to->count = total;
  to->sum = sum_.load(std::memory_order_relaxed);
  to->max = max_.load(std::memory_order_relaxed);
  const uint64_t ranks[] = {(total + 1) / 2, total - total / 10, total - total / 100,
                            total - total / 1000};
  uint64_t *const quantiles[] = {&to->p50, &to->p90, &to->p99, &to->p999};
  uint64_t seen = 0;
  size_t next = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    if (counts[i] == 0) continue;
    seen += counts[i];
    const uint64_t bound = upper(i);
    to->octaves[std::min<size_t>(static_cast<size_t>(std::bit_width(bound)), 63)] += counts[i];
    for (; next < std::size(ranks) && seen >= ranks[next]; ++next) {
      *quantiles[next] = std::min(bound, to->max);
    }
  }
}

}  // namespace le
