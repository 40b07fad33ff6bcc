#include "control/clock.h"

namespace le {
namespace {

CounterScale measure() {
  const uint64_t from_ns = monotonic_ns(), from = counter();
  const timespec pause = {0, 5'000'000};
  nanosleep(&pause, nullptr);
  const uint64_t counts = counter() - from, ns = monotonic_ns() - from_ns;
  const auto scale = (static_cast<unsigned __int128>(ns) << 32) / (counts == 0 ? 1 : counts);
  return CounterScale(static_cast<uint64_t>(scale));
}

}  // namespace

const CounterScale &counter_scale() {
  static const CounterScale scale = measure();
  return scale;
}

}  // namespace le
