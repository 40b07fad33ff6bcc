// Chunks of actions from the refiner to the control loop: one producer, one consumer, wait-free.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace le {

// H actions for the steps first, first + 1, ... From its first step on, a chunk replaces the one
// before it.
struct Chunk {
  uint64_t number = 0;
  uint64_t first = 0;
  uint64_t seen = 0;                // step of the observation that it was made from
  std::vector<int64_t> plan_steps;  // [H], observation step of the oldest plan in each action
  std::vector<float> actions;       // [H, D]

  uint64_t end() const { return first + plan_steps.size(); }
};

class ChunkQueue {
 public:
  // `capacity` is a power of two.
  ChunkQueue(size_t capacity, uint32_t chunk, uint32_t dims)
      : slots_(capacity,
               {0, 0, 0, std::vector<int64_t>(chunk), std::vector<float>(size_t{chunk} * dims)}) {}

  // Producer: fill the slot, then push it; nullptr while the queue is full.
  Chunk *back() {
    const uint64_t tail = tail_.load(std::memory_order_relaxed);
    const uint64_t head = head_.load(std::memory_order_acquire);
    return tail - head < slots_.size() ? &slot(tail) : nullptr;
  }
  void push() { tail_.fetch_add(1, std::memory_order_release); }

  // Consumer: the chunk for `step`, or nullptr; drops what is past or replaced. `end` receives the
  // step after the last queued action.
  const Chunk *at(uint64_t step, uint64_t *end) {
    const uint64_t tail = tail_.load(std::memory_order_acquire);
    uint64_t head = head_.load(std::memory_order_relaxed);
    while (head != tail &&
           (slot(head).end() <= step || (head + 1 != tail && slot(head + 1).first <= step))) {
      ++head;
    }
    head_.store(head, std::memory_order_release);
    *end = head == tail ? step : slot(tail - 1).end();
    return head != tail && slot(head).first <= step ? &slot(head) : nullptr;
  }

  // While neither side runs.
  void clear() { head_.store(tail_.load()); }
  // Consumer: chunks pushed so far.
  uint64_t pushed() const { return tail_.load(std::memory_order_acquire); }

 private:
  Chunk &slot(uint64_t index) { return slots_[index & (slots_.size() - 1)]; }

  std::vector<Chunk> slots_;
  alignas(64) std::atomic<uint64_t> head_{0};
  alignas(64) std::atomic<uint64_t> tail_{0};
};

}  // namespace le
