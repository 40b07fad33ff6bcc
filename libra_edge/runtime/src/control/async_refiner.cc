// The refiner's part of async mode.

#include <algorithm>

#include "control/async.h"
#include "control/noise.h"
#include "engine/checks.h"
#include "error.h"

namespace le {

bool Async::begin_chunk() {
  if (refiner_.active) return false;
  {
    const std::scoped_lock locked(lock_);
    if (!ready()) return false;
    const Now now = this->now();
    const std::optional<uint64_t> first = pace_.next_chunk(now, intents_);
    if (!first) return false;
    if (queue_.back() == nullptr || pace_.waits_for_observation(now)) return false;
    Io &io = refiner_.session->io;
    if (sizes_.plans()) intents_.take(*first, sizes_.chunk, io.chunk_intent.data());
    chunk_noise(seed_, next_chunk_, io.noise.data(), io.noise.size());
    refiner_.epoch = epoch_;
    refiner_.step = *first;
    refiner_.began = now.step;
    const uint64_t used = uint64_t{chunks_per_plan_.load()} * sizes_.chunk;
    refiner_.begun = pace_.chunk_begins(now, *first, intents_, used);
    refiner_.plan_step = intents_.plan_step();
  }
  observed(refiner_, kRefinerReads);
  if (!sizes_.plans()) {
    instruction_.read(0, [&](const std::vector<int64_t> &tokens) {
      std::copy(tokens.begin(), tokens.end(), refiner_.session->io.instruction.begin());
    });
  }
  refiner_.active = true;
  refiner_.ran = false;
  refiner_.since.store(elapsed_ns_.load() + 1);
  return true;
}

// Whether less than a quarter of the time between ticks is left of the present one. By hand there
// is no time between ticks.
bool Async::near_next_tick() const {
  if ((options_.flags & LE_RUN_MANUAL) != 0) return false;
  const uint64_t apart = tick_apart_.load(std::memory_order_relaxed);
  const uint64_t passed = counter() - ticked_at_.load(std::memory_order_relaxed);
  return passed > apart - apart / 4;
}

bool Async::run_chunk() {
  if (!refiner_.active) return false;
  const uint64_t start_ns = monotonic_ns();
  refiner_.text.clear();
  try {
    refiner_.fault = checked_refine(*refiner_.session);
  } catch (const Error &error) {
    refiner_.fault = LE_REASON_REFINER_FAILED;
    refiner_.text = error.text;
  }
  refiner_ns_.add(monotonic_ns() - start_ns);
  return refiner_.ran = true;
}

bool Async::finish_chunk() {
  if (!refiner_.active || !refiner_.ran) return false;
  const std::scoped_lock locked(lock_);
  refiner_.active = false;
  refiner_.since.store(0);
  if (refiner_.epoch != epoch_) return pace_.chunk_dropped(), true;
  if (refiner_.fault != LE_REASON_NONE) return pace_.chunk_dropped(), fail_with(refiner_), true;
  const uint64_t now = step_.load(), number = next_chunk_++;
  pace_.chunk_ends(now, refiner_.began, refiner_.begun, near_next_tick());
  Chunk *chunk = queue_.back();
  if (chunk == nullptr || refiner_.step + rows_ <= now) {
    return bump(dropped_chunks_), true;
  }
  chunk->number = number;
  chunk->first = refiner_.step;
  chunk->seen = refiner_.seen;
  std::copy_n(refiner_.session->io.actions.begin(), chunk->actions.size(), chunk->actions.begin());
  std::fill(chunk->plan_steps.begin(), chunk->plan_steps.end(), refiner_.plan_step);
  blend(*chunk, now);
  last_chunk_ = *chunk;
  queue_end_ = chunk->end();
  queue_.push();
  bump(chunks_);
  return true;
}

// Fades the steps that the last chunk has as well: what is frozen, or past already, stays as it
// was; then the weight of the new action grows step by step.
void Async::blend(Chunk &chunk, uint64_t now) const {
  if (chunk.first >= queue_end_ || options_.blend == LE_BLEND_NONE) return;
  const uint64_t common = queue_end_ - chunk.first;
  const uint64_t past = now > chunk.first ? now - chunk.first : 0;
  const uint64_t frozen = std::min(common, std::max<uint64_t>(past, options_.frozen_steps));
  const uint64_t skipped = chunk.first - last_chunk_.first;
  for (uint64_t i = 0; i < common; ++i) {
    const float weight =
        i < frozen ? 0.0f
                   : static_cast<float>(i - frozen + 1) / static_cast<float>(common - frozen + 1);
    for (uint32_t d = 0; d < sizes_.action_dim; ++d) {
      float &value = chunk.actions[i * sizes_.action_dim + d];
      const float before = last_chunk_.actions[(i + skipped) * sizes_.action_dim + d];
      value = before + weight * (value - before);
    }
    chunk.plan_steps[i] = std::min(chunk.plan_steps[i], last_chunk_.plan_steps[i + skipped]);
  }
}

}  // namespace le
