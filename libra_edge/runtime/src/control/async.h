// Async mode without its threads: what the control loop, the planner and the refiner do, each in
// steps that a thread or a test can take.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "control/chunk_queue.h"
#include "control/clock.h"
#include "control/command.h"
#include "control/histogram.h"
#include "control/intents.h"
#include "control/latest.h"
#include "control/look_back.h"
#include "control/pace.h"
#include "control/run_options.h"
#include "engine/engines.h"
#include "libra_edge.h"
#include "release/manifest.h"

namespace le {

// Who reads observations, besides the one who makes them.
constexpr size_t kPlannerReads = 0, kRefinerReads = 1;

// For counters that one thread writes.
inline void bump(std::atomic<uint64_t> &number) {
  number.store(number.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

// What was seen up to a step, the newest last.
struct Seen {
  std::vector<uint8_t> images;
  std::vector<float> state;
  uint64_t step = 0;
  uint64_t number = 0;  // counts observations from 1
};

// One engine call: its memory, and what it is for.
struct Job {
  explicit Job(const Engines &engines) : session(engines.session()) {}

  std::unique_ptr<Session> session;
  bool active = false, ran = false;
  uint64_t epoch = 0;
  uint64_t step = 0;   // of the observation (planner), first of the chunk (refiner)
  uint64_t began = 0;  // the step at which it began
  Pace::Begun begun;
  uint64_t seen = 0;  // step of the observation
  int64_t plan_step = -1;
  le_reason fault = LE_REASON_NONE;
  std::string text;
  std::atomic<uint64_t> since{0};  // when it began, on the clock of ticks, plus 1; 0: idle
};

class Async {
 public:
  // `options` are complete. The other references must outlive this object.
  Async(const Sizes &sizes, const Engines &engines, const le_run_options &options, uint64_t seed,
        Command &command);

  // The control loop's thread. No allocation, lock or system call.
  void tick(uint64_t now_ns, float *action, le_tick_info *info);

  // The observer's and the instructor's thread. No allocation, lock or system call.
  void observe(const le_observation &observation);
  void set_instruction(const int64_t *tokens);
  void latch(le_reason fault);

  // The planner's and the refiner's thread: begin, run, finish. True where there is work.
  bool begin_plan();
  bool run_plan();
  bool finish_plan();
  bool begin_chunk();
  bool run_chunk();
  bool finish_chunk();

  // The planner's thread: what the newest planner call gave; nullptr before the first.
  const std::vector<int32_t> *last_plan() const {
    return planner_.ran ? &planner_.session->io.plan_intent : nullptr;
  }

  // Any thread.
  void set_chunks_per_plan(uint32_t chunks) { chunks_per_plan_.store(chunks); }
  void stats(le_stats_info *stats);

  // While neither ticks nor observations run; engine calls may.
  void reset(uint64_t seed);
  le_reason fault() const { return fault_.load(); }
  std::string fault_text();
  void set_realtime(uint32_t asked, uint32_t got) { asked_ = asked, got_ = got; }
  bool plans() const { return sizes_.plans(); }

 private:
  friend struct Simulation;  // a test that delivers plans twice and out of order
  using Counter = std::atomic<uint64_t>;

  void advance_clock(uint64_t now_ns);
  uint64_t observation_age(uint64_t now_ns);
  bool timed_out(const Job &job) const;
  le_reason hold_reason(uint64_t observation_age_ns) const;
  Limited send(const float *wanted, float *action);
  le_reason out_of_actions(uint64_t step, uint64_t queue_end) const;
  void count(const le_tick_info &info);
  void fail_with(const Job &job);
  void take_plan(uint64_t plan_step, const int32_t *intents);
  bool ready() const;
  bool observed(Job &job, size_t reader);
  Now now() const;
  bool near_next_tick() const;
  void blend(Chunk &chunk, uint64_t now) const;

  const Sizes sizes_;
  const le_run_options options_;
  const uint32_t rows_;  // of a chunk, as it is queued
  Command &command_;
  uint32_t asked_ = 0, got_ = 0;

  // The control loop's clock: the sum of all forward steps of now_ns, and the number of ticks.
  bool ticked_ = false;
  uint64_t last_now_ns_ = 0;
  std::atomic<uint64_t> elapsed_ns_{0};
  std::atomic<uint64_t> step_{0};
  std::atomic<uint64_t> ticked_at_{0}, tick_apart_{0};  // on the processor's counter
  std::atomic<uint32_t> fault_{LE_REASON_NONE};
  le_state last_state_ = LE_HOLD;

  Latest<Seen, 2> seen_;
  Latest<std::vector<float>, 1> state_;  // of the newest observation, for the control loop
  Latest<std::vector<int64_t>, 1> instruction_;
  std::atomic<bool> instructed_{false};
  uint64_t observations_ = 0;
  std::atomic<uint64_t> timestamp_ns_{0};
  std::atomic<uint64_t> observed_step_{0}, observation_gap_{UINT64_MAX};
  std::atomic<uint64_t> observation_{0};            // number of the newest; 0: none since reset
  uint64_t last_observation_ = 0, arrival_ns_ = 0;  // what the last tick knew

  // Between planner and refiner, under the lock. Never held during an engine call.
  std::mutex lock_;
  uint64_t epoch_ = 0;
  uint64_t seed_;
  IntentBuffer intents_;
  uint64_t asked_observation_ = 0;  // number of the observation of the newest planner call
  uint64_t next_chunk_ = 0;
  uint64_t queue_end_ = 0;
  Chunk last_chunk_;
  Pace pace_;
  std::string fault_text_;
  Job planner_, refiner_;
  ChunkQueue queue_;
  std::atomic<uint32_t> chunks_per_plan_;
  std::atomic<uint64_t> plan_end_{0};  // for the control loop

  const CounterScale &scale_;
  Histogram tick_ns_, planner_ns_, refiner_ns_, plan_age_, queue_steps_;
  Counter running_{0}, hold_{0}, faulted_{0}, holds_{0}, faults_{0}, underruns_{0};
  Counter clamped_{0}, slowed_{0};
  Counter plans_{0}, dropped_plans_{0}, chunks_{0}, dropped_chunks_{0};
  std::array<Counter, 16> hold_reasons_{};
};

}  // namespace le
