#include "clock.h"

namespace le {

CounterScale::CounterScale() {
  const uint64_t from_ns = monotonic_ns(), from = counter();
  const timespec pause = {0, 5'000'000};
  nanosleep(&pause, nullptr);
  const uint64_t counts = counter() - from, ns = monotonic_ns() - from_ns;
  scale_ =
      counts == 0 ? 0 : static_cast<uint64_t>((static_cast<unsigned __int128>(ns) << 32) / counts);
}

}  // namespace le
