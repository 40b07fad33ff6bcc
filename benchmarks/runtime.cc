// Measurements that need the runtime's insides; run by benchmarks/runtime.py.
//
//     runtime tick TICKS              le_tick's work, with both engine threads burning a core
//     runtime overhead RELEASE COUNT  a whole refiner chunk against the bare ONNX Runtime call
//     runtime latency                 time per chunk for M = 2, 3, 4, 5, with engines that sleep
//
// Prints one JSON object.

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "async.h"
#include "clock.h"
#include "ort_engines.h"
#include "release.h"
#include "threads.h"

namespace {

using le::monotonic_ns;

constexpr float kFree = std::numeric_limits<float>::infinity();

// Engines that take a given time, burning a core or sleeping.
class Timed final : public le::Session {
 public:
  Timed(const le::Sizes &sizes, uint64_t plan_ns, uint64_t refine_ns, bool burn)
      : Session(sizes), plan_ns_(plan_ns), refine_ns_(refine_ns), burn_(burn) {}
  void plan() override { take(plan_ns_); }
  void refine() override { take(refine_ns_); }

 private:
  void take(uint64_t ns) const {
    const uint64_t until = monotonic_ns() + ns;
    const timespec pause = {0, static_cast<long>(ns)};
    if (!burn_) clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
    while (monotonic_ns() < until) continue;
  }

  uint64_t plan_ns_, refine_ns_;
  bool burn_;
};

class TimedEngines final : public le::Engines {
 public:
  TimedEngines(const le::Sizes &sizes, uint64_t plan_ns, uint64_t refine_ns, bool burn)
      : sizes_(sizes), plan_ns_(plan_ns), refine_ns_(refine_ns), burn_(burn) {}
  std::unique_ptr<le::Session> session() const override {
    return std::make_unique<Timed>(sizes_, plan_ns_, refine_ns_, burn_);
  }

 private:
  le::Sizes sizes_;
  uint64_t plan_ns_, refine_ns_;
  bool burn_;
};

le::Sizes sizes_of(uint32_t chunk, uint32_t chunks) {
  return {10, chunk, chunks, chunk * chunks, 5, 7, 8, 2, 96, 96, 12};
}

struct Robot {
  explicit Robot(const le::Sizes &sizes)
      : images(sizes.image_bytes(), 100),
        state(sizes.state_dim),
        tokens(sizes.instruction_length) {}

  void observe(le::Async &async, uint64_t now_ns) const {
    le_observation o = {};
    o.images = images.data();
    o.state = state.data();
    o.timestamp_ns = now_ns;
    async.observe(o);
  }

  std::vector<uint8_t> images;
  std::vector<float> state;
  std::vector<int64_t> tokens;
};

int tick(uint64_t ticks) {
  // Chunks so long that the queue never runs dry at this pace: the longer path through le_tick.
  const le::Sizes sizes = sizes_of(1000, 4);
  const TimedEngines engines(sizes, 1'500'000, 200'000, true);
  const std::vector<le::ActionLimit> limits(sizes.action_dim, {true, false, -1, 1, 0.5f, 0.5f});
  le::Command command(limits);
  le_run_options options = {};
  options.refill_at = sizes.chunks_per_plan;
  options.poll_ns = 1000;
  options.max_observation_age_ns = 60'000'000'000;
  options = le::complete_options(options, sizes);
  le::Async async(sizes, engines, options, 1, command);
  const Robot robot(sizes);
  async.set_instruction(robot.tokens.data());
  const le::Workers workers(async, options);
  std::vector<float> action(sizes.action_dim);
  // As a robot's control loop has it; without the right to ask, the scheduler shows in the tail.
  sched_param parameter = {};
  parameter.sched_priority = 50;
  const bool fifo = pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameter) == 0;
  for (uint64_t i = 0; i < ticks; ++i) {
    const uint64_t now = monotonic_ns();
    if (i % 100 == 0) robot.observe(async, now);
    le_tick_info info = {};
    async.tick(now, action.data(), &info);
    while (monotonic_ns() < now + 5000) continue;
  }
  le_stats_info stats = {};
  async.stats(&stats);
  const le_histogram &h = stats.tick_ns;
  std::printf(
      "{\"fifo\": %s, \"ticks\": %llu, \"running\": %llu, \"planner_calls\": %llu, "
      "\"refiner_calls\": %llu, \"p50_ns\": %llu, \"p99_ns\": %llu, \"p999_ns\": %llu, "
      "\"max_ns\": %llu}\n",
      fifo ? "true" : "false", static_cast<unsigned long long>(stats.ticks),
      static_cast<unsigned long long>(stats.running_ticks),
      static_cast<unsigned long long>(stats.planner_ns.count),
      static_cast<unsigned long long>(stats.refiner_ns.count),
      static_cast<unsigned long long>(h.p50), static_cast<unsigned long long>(h.p99),
      static_cast<unsigned long long>(h.p999), static_cast<unsigned long long>(h.max));
  return 0;
}

uint64_t median(std::vector<uint64_t> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

int overhead(const char *directory, int count) {
  const le::Release release = le::read_release(directory);
  const le::Sizes &sizes = release.manifest.sizes;
  const le::OrtEngines engines(release, 1);
  le::Command command(release.manifest.limits);
  le_run_options options = {};
  options.flags = LE_RUN_MANUAL;
  options = le::complete_options(options, sizes);
  le::Async async(sizes, engines, options, 1, command);
  const Robot robot(sizes);
  async.set_instruction(robot.tokens.data());
  const auto bare = engines.session();
  bare->io.images = robot.images;
  std::vector<float> action(sizes.action_dim);
  std::vector<uint64_t> bare_ns, whole_ns;
  for (uint64_t turn = 0; whole_ns.size() < static_cast<size_t>(count); ++turn) {
    robot.observe(async, 1);
    if (async.begin_plan()) async.run_plan(), async.finish_plan();
    bare->refine();  // the planner has emptied the caches; neither side is to pay for that
    const auto run_bare = [&] {
      const uint64_t start = monotonic_ns();
      bare->refine();
      bare_ns.push_back(monotonic_ns() - start);
    };
    const bool bare_first = turn % 2 == 0;
    if (bare_first) run_bare();
    const uint64_t start = monotonic_ns();
    if (async.begin_chunk()) {
      async.run_chunk();
      async.finish_chunk();
      whole_ns.push_back(monotonic_ns() - start);
    }
    if (!bare_first) run_bare();
    le_tick_info info = {};
    async.tick(1, action.data(), &info);
  }
  std::printf("{\"count\": %d, \"bare_ns\": %llu, \"whole_ns\": %llu}\n", count,
              static_cast<unsigned long long>(median(bare_ns)),
              static_cast<unsigned long long>(median(whole_ns)));
  return 0;
}

// One chunk after the other on one thread, as in sync mode: what the formula is about.
int latency() {
  constexpr uint64_t kPlannerNs = 6'000'000, kRefinerNs = 9'200'000;
  std::printf("{\"planner_ns\": %llu, \"refiner_ns\": %llu",
              static_cast<unsigned long long>(kPlannerNs),
              static_cast<unsigned long long>(kRefinerNs));
  for (uint32_t chunks = 2; chunks <= 5; ++chunks) {
    const le::Sizes sizes = sizes_of(5, 5);
    const TimedEngines engines(sizes, kPlannerNs, kRefinerNs, false);
    const std::vector<le::ActionLimit> limits(sizes.action_dim, {true, false, -1, 1, kFree, kFree});
    le::Command command(limits);
    le_run_options options = {};
    options.flags = LE_RUN_MANUAL;
    options.chunks_per_plan = chunks;
    options.refine_ahead_steps = 1;
    options = le::complete_options(options, sizes);
    options.refill_at = 0;  // as sync: the planner runs when nothing is left
    options.refine_ahead_steps = 0;
    le::Async async(sizes, engines, options, 1, command);
    const Robot robot(sizes);
    async.set_instruction(robot.tokens.data());
    std::vector<float> action(sizes.action_dim);
    uint64_t total_ns = 0, made = 0;
    while (made < 60) {
      robot.observe(async, 1);
      const uint64_t start = monotonic_ns();
      if (async.begin_plan()) async.run_plan(), async.finish_plan();
      if (async.begin_chunk()) async.run_chunk(), async.finish_chunk(), ++made;
      total_ns += monotonic_ns() - start;
      le_tick_info info = {};
      async.tick(1, action.data(), &info);
    }
    std::printf(", \"%u\": %llu", chunks, static_cast<unsigned long long>(total_ns / made));
  }
  std::printf("}\n");
  return 0;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc == 3 && std::strcmp(argv[1], "tick") == 0) {
    return tick(std::strtoull(argv[2], nullptr, 10));
  }
  if (argc == 4 && std::strcmp(argv[1], "overhead") == 0)
    return overhead(argv[2], std::atoi(argv[3]));
  if (argc == 2 && std::strcmp(argv[1], "latency") == 0) return latency();
  return 2;
}
