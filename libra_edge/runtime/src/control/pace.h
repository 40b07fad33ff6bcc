// When the next chunk and the next plan are begun in async mode, decided in whole control steps:
// libra_edge/policy/execution/pace.py.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "control/intents.h"
#include "engine/tensor.h"
#include "libra_edge.h"

namespace le {

// How many actions are left when the next chunk is begun: asked for, or as few as 99 of the last
// 100 refiner calls needed to be back in time; the longest of them while there are fewer, H before
// the first and never more than that; and besides, those that it shares with the next.
class RefineAhead {
 public:
  RefineAhead(const le_run_options &options, uint32_t chunk);

  bool automatic() const { return asked_ == 0; }
  // Takes in what a call took, and whether the planner ran meanwhile.
  void add(uint64_t steps, bool planner_beside);
  uint64_t steps() const { return steps_; }
  uint32_t reason() const { return reason_; }
  uint64_t p99() const { return p99_; }

 private:
  static constexpr size_t kWindow = 128;
  struct Call {
    uint64_t steps;
    bool planner_beside;
  };

  uint64_t p99_of(bool all) const;

  const uint32_t asked_, chunk_, shared_;
  std::array<Call, kWindow> calls_;
  uint64_t count_ = 0;
  uint64_t steps_, p99_ = 0;
  uint32_t reason_;
};

// The moment of a decision: the step, the one after the queue, and the newest observation.
struct Now {
  uint64_t step, queue_end, seen;
  uint64_t gap;  // control steps between the newest two observations; all bits: there are not two

  uint64_t queued() const { return queue_end > step ? queue_end - step : 0; }
  uint64_t end() const { return queue_end > step ? queue_end : step; }
};

// Not safe for threads: one lock is around everything. What was asked in vain changes nothing, so
// that a recording needs what was done alone.
class Pace {
 public:
  // What the end of a refiner call has to know of its beginning.
  struct Begun {
    uint64_t due = 0;          // since when it could have begun
    uint64_t plans_ended = 0;  // planner calls, by then
  };

  Pace(const Sizes &sizes, const le_run_options &options);

  void reset();
  // The first step of the chunk that can be begun now.
  std::optional<uint64_t> next_chunk(const Now &now, const IntentBuffer &intents) const;
  // Whether a chunk that can be begun has to wait for the observation of this step: only where one
  // came in the step before, and in the step in which the chunk is due alone.
  bool waits_for_observation(const Now &now) const;
  // `first`: what next_chunk gave.
  Begun chunk_begins(const Now &now, uint64_t first, const IntentBuffer &intents, uint64_t used);
  void chunk_dropped();
  // `near_next`: it ended so late in its step that the next such call may end in the one after.
  void chunk_ends(uint64_t step, uint64_t began, const Begun &begun, bool near_next);
  // Whether the planner is to be asked; `used`: steps to use of its plan.
  bool plan_due(const Now &now, const IntentBuffer &intents, uint64_t used) const;
  void plan_begins(uint64_t step);
  // One that a reset fell into tells nothing.
  void plan_ends(uint64_t step);
  const RefineAhead &ahead() const { return ahead_; }

 private:
  uint64_t lead(uint64_t step) const;
  // When a chunk of a plan that is asked for now could be begun so as to be in time.
  uint64_t there(const Now &now) const;
  bool needs_plan(const Now &now, const IntentBuffer &intents, uint64_t used) const;
  bool yields(const Now &now, const IntentBuffer &intents) const;

  const uint64_t chunk_, plan_steps_, refill_, shared_, max_plan_age_;
  const bool plans_;
  RefineAhead ahead_;
  uint64_t plans_begun_ = 0, plans_ended_ = 0, refines_begun_ = 0, refines_ended_ = 0;
  std::array<uint64_t, 2> lasted_{};  // steps that the last two refiner calls took
  uint64_t ended_at_ = 0;             // when the last of them ended
  std::array<uint64_t, 2> plan_lasted_{};
  std::optional<uint64_t> plan_began_;
  uint64_t coming_end_ = 0;  // of the chunk under way
  uint64_t yields_to_ = 0;   // the refiner call that the planner makes way for, from 1
};

}  // namespace le
