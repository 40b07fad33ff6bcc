// The refiner's part of async mode.

#include <algorithm>

#include "control/async.h"
#include "control/noise.h"
#include "engine/checks.h"
#include "error.h"

namespace le {

// Steps that the refiner is expected to take. One slow call says nothing yet about the next, so the
// shorter of the last two counts, and that no longer than a plan.
uint64_t Async::refiner_lead(uint64_t now) const {
  return now <= refined_step_ + sizes_.plan_steps ? std::min(refine_steps_[0], refine_steps_[1])
                                                  : 0;
}

// Where a chunk joins the queue: where that ends, or where the two are blended.
uint64_t Async::joins(uint64_t now, uint64_t queued) const {
  return queued > options_.blend_steps ? queue_end_ - options_.blend_steps : now;
}

// The next chunk begins where the queue ends, but not before the refiner can be back. Where fewer
// steps are planned it has the last H of them, if one is left by then; but no queued action is
// given up for that.
bool Async::take_intents(uint64_t now, uint64_t queued) {
  const uint64_t back = now + refiner_lead(now);
  const uint64_t joins = this->joins(now, queued);
  if (!sizes_.plans()) {
    refiner_.step = std::max(joins, back);
    return true;
  }
  const uint64_t planned = intents_.end();
  const uint64_t last = planned - std::min<uint64_t>(planned, sizes_.chunk);
  uint64_t first = std::max(joins, back);
  if (last < first && planned > back && (queued == 0 || last >= joins)) first = last;
  const int64_t age = static_cast<int64_t>(std::max(first, now)) - intents_.plan_step();
  if (age > static_cast<int64_t>(options_.max_plan_age_steps)) return false;
  refiner_.step = first;
  return intents_.take(first, sizes_.chunk, refiner_.session->io.chunk_intent.data());
}

bool Async::begin_chunk() {
  if (refiner_.active) return false;
  {
    const std::scoped_lock locked(lock_);
    if (!ready()) return false;
    const uint64_t now = step_.load();
    const uint64_t queued = queue_end_ > now ? queue_end_ - now : 0;
    if (queued > options_.refine_ahead_steps || queue_.back() == nullptr) return false;
    if (!take_intents(now, queued)) return false;
    Io &io = refiner_.session->io;
    chunk_noise(seed_, next_chunk_, io.noise.data(), io.noise.size());
    refiner_.epoch = epoch_;
    refiner_.began = now;
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
  if (refiner_.epoch != epoch_) return true;
  if (refiner_.fault != LE_REASON_NONE) return fail_with(refiner_), true;
  const uint64_t now = step_.load(), number = next_chunk_++;
  refine_steps_ = {now - refiner_.began, refine_steps_[0]};
  refined_step_ = now;
  Chunk *chunk = queue_.back();
  if (chunk == nullptr || refiner_.step + rows_ <= now) {
    return bump(dropped_chunks_), true;
  }
  chunk->number = number;
  chunk->first = refiner_.step;
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
