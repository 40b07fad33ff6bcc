// The newest value of one writer, for several readers, without locks.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace le {

// One slot more than readers and writer can hold at once, so that the writer never waits: a triple
// buffer for one reader. All orders are sequentially consistent because the writer's look at the
// readers' claims and a reader's second look at the newest slot must not pass each other.
template <typename T, size_t kReaders>
class Latest {
 public:
  explicit Latest(const T &initial) {
    slots_.fill(initial);
    for (std::atomic<uint32_t> &claim : claims_) claim.store(kNone);
  }

  // For the one writer: fill the slot, then publish it.
  T &writable() {
    writing_ = 0;
    while (writing_ == newest_.load() || claimed(writing_)) ++writing_;
    return slots_[writing_];
  }
  void publish() { newest_.store(writing_); }
  // For the writer: what it published last.
  const T &newest() const { return slots_[newest_.load()]; }

  // For reader `r`: `use` sees a slot that nobody changes meanwhile. A retry needs the writer to
  // have published in between.
  template <typename Use>
  void read(size_t r, Use &&use) {
    uint32_t slot = newest_.load();
    for (;;) {
      claims_[r].store(slot);
      const uint32_t again = newest_.load();
      if (again == slot) break;
      slot = again;
    }
    use(static_cast<const T &>(slots_[slot]));
    claims_[r].store(kNone);
  }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  bool claimed(uint32_t slot) const {
    for (const std::atomic<uint32_t> &claim : claims_) {
      if (claim.load() == slot) return true;
    }
    return false;
  }

  std::array<T, kReaders + 2> slots_;
  std::atomic<uint32_t> newest_{0};
  uint32_t writing_ = 0;
  std::array<std::atomic<uint32_t>, kReaders> claims_;
};

}  // namespace le
