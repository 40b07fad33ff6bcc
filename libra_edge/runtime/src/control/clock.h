// Time, with and without a system call.
#pragma once

#include <time.h>

#include <cstdint>

namespace le {

inline uint64_t monotonic_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

// The processor's counter: on some machines even clock_gettime enters the kernel.
inline uint64_t counter() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#else
  uint64_t value;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
  return value;
#endif
}

// Nanoseconds per count of counter(), as a fixed-point number with 32 fractional bits.
class CounterScale {
 public:
  explicit CounterScale(uint64_t scale) : scale_(scale) {}
  uint64_t to_ns(uint64_t counts) const {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(counts) * scale_) >> 32);
  }

 private:
  uint64_t scale_;
};

// Compares the two clocks for a few milliseconds, once in a process.
const CounterScale &counter_scale();

}  // namespace le
