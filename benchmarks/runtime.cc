// Measurements that need the runtime's insides; run by benchmarks/runtime.py.
//
//     runtime tick RELEASE TICKS      le_tick's work, with both engine threads busy
//     runtime overhead RELEASE COUNT  a whole refiner chunk against the bare ONNX Runtime call
//     runtime latency RELEASE COUNT   time per chunk for M = 2, 3, 4, 5 against the bare calls
//
// Prints one JSON object.

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "control/async.h"
#include "control/clock.h"
#include "control/threads.h"
#include "engine/ort_engines.h"
#include "error.h"
#include "release/release.h"

namespace {

using le::monotonic_ns;

// The engines of a release at work, behind a policy with chunks of 40 ms at 200,000 ticks per
// second: the refiner runs for half of that, and yet the queue is filled, so that ticks take the
// longer path.
class BusySession final : public le::Session {
 public:
  BusySession(const le::Sizes &sizes, const le::Engines &engines)
      : Session(sizes), real_(engines.session()) {}
  void plan() override { real_->plan(); }
  void refine() override {
    const uint64_t until = monotonic_ns() + 20'000'000;
    while (monotonic_ns() < until) real_->refine();
  }

 private:
  std::unique_ptr<le::Session> real_;
};

class BusyEngines final : public le::Engines {
 public:
  BusyEngines(const le::Sizes &sizes, const le::Engines &engines)
      : sizes_(sizes), engines_(engines) {}
  std::unique_ptr<le::Session> session() const override {
    return std::make_unique<BusySession>(sizes_, engines_);
  }

 private:
  le::Sizes sizes_;
  const le::Engines &engines_;
};

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

int tick(const char *directory, uint64_t ticks) {
  const le::Release release = le::read_release(directory, LE_OPEN_ALLOW_RANDOM_WEIGHTS);
  const le::OrtEngines real(release, 1);
  le::Sizes sizes = release.manifest.sizes;
  sizes.chunk = 8'000;
  sizes.plan_steps = sizes.chunk * sizes.chunks_per_plan;
  const BusyEngines engines(sizes, real);
  std::vector<le::ActionLimit> limits = release.manifest.limits;
  for (le::ActionLimit &limit : limits) limit.max_step_change = limit.max_acceleration = 0.5f;
  le::Command command(limits);
  le_run_options options = {};
  options.refill_at = sizes.chunks_per_plan;
  options.refine_ahead_steps = sizes.chunk;
  options.poll_ns = 1000;
  options.max_observation_age_ns = 60'000'000'000;
  options = le::complete_options(options, sizes);
  le::Async async(sizes, engines, options, 1, command);
  const Robot robot(sizes);
  async.set_instruction(robot.tokens.data());
  const le::Workers workers(async, options);
  std::vector<float> action(sizes.action_dim);
  const uint64_t begin_ns = monotonic_ns();
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
      "{\"fifo\": %s, \"wall_ns\": %llu, \"planner_sum_ns\": %llu, \"refiner_sum_ns\": %llu, "
      "\"ticks\": %llu, \"running\": %llu, \"p50_ns\": %llu, \"p99_ns\": %llu, \"p999_ns\": %llu, "
      "\"max_ns\": %llu}\n",
      fifo ? "true" : "false", static_cast<unsigned long long>(monotonic_ns() - begin_ns),
      static_cast<unsigned long long>(stats.planner_ns.sum),
      static_cast<unsigned long long>(stats.refiner_ns.sum),
      static_cast<unsigned long long>(stats.ticks),
      static_cast<unsigned long long>(stats.running_ticks), static_cast<unsigned long long>(h.p50),
      static_cast<unsigned long long>(h.p99), static_cast<unsigned long long>(h.p999),
      static_cast<unsigned long long>(h.max));
  return 0;
}

template <typename T>
T median(std::vector<T> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

int overhead(const char *directory, int count) {
  const le::Release release = le::read_release(directory, LE_OPEN_ALLOW_RANDOM_WEIGHTS);
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
  const auto run_bare = [&] {
    const uint64_t start = monotonic_ns();
    bare->refine();
    bare_ns.push_back(monotonic_ns() - start);
  };
  const auto run_whole = [&] {
    const uint64_t start = monotonic_ns();
    async.begin_chunk();
    async.run_chunk();
    async.finish_chunk();
    whole_ns.push_back(monotonic_ns() - start);
  };
  std::vector<double> overheads;  // of four neighbours, each kind first once
  for (int turn = 0; turn < count; ++turn) {
    robot.observe(async, 1);
    if (async.begin_plan()) async.run_plan(), async.finish_plan();
    bare->refine();  // the planner has emptied the caches; neither side is to pay for that
    if (turn % 2 == 0) {
      run_bare(), run_whole();
    } else {
      run_whole(), run_bare();
    }
    for (uint32_t step = 0; step < sizes.chunk; ++step) {
      le_tick_info info = {};
      async.tick(1, action.data(), &info);
    }
    if (turn % 2 == 0) continue;
    const auto two = [](const auto &ns) { return double(ns.back() + ns[ns.size() - 2]); };
    overheads.push_back(two(whole_ns) / two(bare_ns) - 1);
  }
  le_stats_info stats = {};
  async.stats(&stats);
  if (stats.chunks != static_cast<uint64_t>(count)) return 1;
  std::printf("{\"count\": %d, \"bare_ns\": %llu, \"whole_ns\": %llu, \"overhead\": %.6f}\n", count,
              static_cast<unsigned long long>(median(bare_ns)),
              static_cast<unsigned long long>(median(whole_ns)), median(overheads));
  return 0;
}

// One chunk after the other on one thread, as in sync mode: what the formula is about.
class InTurn {
 public:
  InTurn(const le::Sizes &sizes, const le::Engines &engines, uint32_t chunks, le::Command &command)
      : chunks_(chunks), action_(sizes.action_dim), robot_(sizes) {
    le_run_options options = {};
    options.flags = LE_RUN_MANUAL;
    options.chunks_per_plan = chunks;
    options = le::complete_options(options, sizes);
    options.refill_at = 0;  // the planner runs when nothing is left
    options.refine_ahead_steps = 0;
    async_ = std::make_unique<le::Async>(sizes, engines, options, 1, command);
    async_->set_instruction(robot_.tokens.data());
  }

  // Time per chunk, over all chunks of one plan.
  uint64_t plan_ns() {
    uint64_t total_ns = 0;
    for (uint32_t made = 0; made < chunks_;) {
      robot_.observe(*async_, 1);
      const uint64_t start = monotonic_ns();
      if (async_->begin_plan()) async_->run_plan(), async_->finish_plan();
      if (async_->begin_chunk()) async_->run_chunk(), async_->finish_chunk(), ++made;
      total_ns += monotonic_ns() - start;
      le_tick_info info = {};
      async_->tick(1, action_.data(), &info);
    }
    return total_ns / chunks_;
  }

 private:
  uint32_t chunks_;
  std::vector<float> action_;
  Robot robot_;
  std::unique_ptr<le::Async> async_;
};

int latency(const char *directory, int count) {
  const le::Release release = le::read_release(directory, LE_OPEN_ALLOW_RANDOM_WEIGHTS);
  const le::OrtEngines engines(release, 1);
  const auto bare = engines.session();
  le::Command command(release.manifest.limits);
  std::vector<InTurn> runs;
  for (uint32_t chunks = 2; chunks <= 5; ++chunks) {
    runs.emplace_back(release.manifest.sizes, engines, chunks, command);
  }
  std::vector<uint64_t> planner_ns, refiner_ns, measured_ns[4];
  std::vector<double> formula_ns[4], differences[4];
  for (int turn = 0; turn < count; ++turn) {
    for (size_t run = 0; run < runs.size(); ++run) {
      const size_t chunks = run + 2;
      uint64_t start = monotonic_ns();
      bare->plan();
      planner_ns.push_back(monotonic_ns() - start);
      uint64_t total_ns = planner_ns.back();
      for (size_t chunk = 0; chunk < chunks; ++chunk) {
        start = monotonic_ns();
        bare->refine();
        refiner_ns.push_back(monotonic_ns() - start);
        total_ns += refiner_ns.back();
      }
      formula_ns[run].push_back(double(total_ns) / double(chunks));
      measured_ns[run].push_back(runs[run].plan_ns());
      differences[run].push_back(double(measured_ns[run].back()) / formula_ns[run].back() - 1);
    }
  }
  std::printf("{\"plans\": %d, \"planner_ns\": %llu, \"refiner_ns\": %llu", count,
              static_cast<unsigned long long>(median(planner_ns)),
              static_cast<unsigned long long>(median(refiner_ns)));
  for (size_t run = 0; run < runs.size(); ++run) {
    std::printf(", \"%zu\": {\"formula_ns\": %.0f, \"measured_ns\": %llu, \"difference\": %.6f}",
                run + 2, median(formula_ns[run]),
                static_cast<unsigned long long>(median(measured_ns[run])),
                median(differences[run]));
  }
  std::printf("}\n");
  return 0;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  const uint64_t count = std::strtoull(argv[3], nullptr, 10);
  try {
    if (std::strcmp(argv[1], "tick") == 0) return tick(argv[2], count);
    if (std::strcmp(argv[1], "overhead") == 0) return overhead(argv[2], static_cast<int>(count));
    if (std::strcmp(argv[1], "latency") == 0) return latency(argv[2], static_cast<int>(count));
  } catch (const le::Error &error) {
    std::fprintf(stderr, "%s\n", error.text.c_str());
  }
  return 2;
}
