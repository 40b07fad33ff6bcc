// A log-linear histogram in fixed memory: 16 buckets per power of two, within 6 % of each value.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

#include "libra_edge.h"

namespace le {

// One thread adds, any thread reads. Plain loads and stores: nobody else writes.
class Histogram {
 public:
  void add(uint64_t value) {
    bump(buckets_[index(value)], 1);
    bump(count_, 1);
    bump(sum_, value);
    if (value > max_.load(std::memory_order_relaxed)) {
      max_.store(value, std::memory_order_relaxed);
    }
  }
  void read(le_histogram *to) const;

 private:
  static constexpr unsigned kSubBits = 4;
  static constexpr unsigned kSub = 1u << kSubBits;
  static constexpr size_t kBuckets = (64 - kSubBits) * kSub + kSub;

  static size_t index(uint64_t value) {
    if (value < kSub) return static_cast<size_t>(value);
    const unsigned octave = 63 - static_cast<unsigned>(std::countl_zero(value));
    const uint64_t sub = (value >> (octave - kSubBits)) & (kSub - 1);
    return (octave - kSubBits + 1) * kSub + static_cast<size_t>(sub);
  }
  // The largest value that falls into a bucket.
  static uint64_t upper(size_t index);

  static void bump(std::atomic<uint64_t> &number, uint64_t by) {
    number.store(number.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }

  std::array<std::atomic<uint64_t>, kBuckets> buckets_{};
  std::atomic<uint64_t> count_{0}, sum_{0}, max_{0};
};

}  // namespace le
