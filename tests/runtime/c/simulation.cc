// Async mode against scripted engines in virtual time: seeded latencies, stalls, clock jumps,
// repeated and reordered plans, values that are not finite, late observations.
//
//     simulation FIRST_SEED COUNT [trace]
//
// Each seed is one episode. Exit status 1 and the seed at the first broken invariant; the same seed
// with `trace` prints that episode tick by tick.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "control/async.h"
#include "error.h"

namespace le {

constexpr float kFree = std::numeric_limits<float>::infinity();
constexpr uint32_t kBins = 1 << 20;
constexpr uint64_t kHour = 3'600'000'000'000;
constexpr int kSlots = 4;  // moments between two ticks
constexpr size_t kTags = 2;

// splitmix64: the same episode from the same seed everywhere.
struct Random {
  uint64_t state;

  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(next() % n); }
  uint32_t between(uint32_t low, uint32_t high) { return low + below(high - low + 1); }
  bool chance(double p) { return static_cast<double>(next() >> 11) * 0x1p-53 < p; }
  float uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(next() >> 40) * 0x1p-24f;
  }
};

enum Poison {
  kNone,
  kMarginNan,
  kIntentOut,
  kPlannerThrows,
  kActionNan,
  kActionInf,
  kRefinerThrows
};

// Dimension 0 carries the step of the plan's observation, dimension 1 the step an action is for.
class ScriptedSession final : public Session {
 public:
  ScriptedSession(const Sizes &sizes, Random &random, Poison &poison)
      : Session(sizes), sizes_(sizes), random_(random), poison_(poison) {}

  void plan() override {
    if (poison_ == kPlannerThrows) throw Error{LE_ENGINE, "scripted"};
    const auto seen = static_cast<int32_t>(io.state[0]);
    for (uint32_t l = 0; l < sizes_.plan_steps; ++l) {
      int32_t *row = &io.plan_intent[size_t{l} * sizes_.action_dim];
      std::fill(row, row + sizes_.action_dim, 0);
      row[0] = seen;
      row[1] = seen + static_cast<int32_t>(l);
    }
    std::fill(io.margin.begin(), io.margin.end(), 1.0f);
    if (poison_ == kMarginNan) io.margin[random_.below(io.margin.size())] = NAN;
    if (poison_ == kIntentOut) io.plan_intent[random_.below(io.plan_intent.size())] = -1;
  }

  void refine() override {
    if (poison_ == kRefinerThrows) throw Error{LE_ENGINE, "scripted"};
    for (uint32_t i = 0; i < sizes_.chunk_count(); ++i) {
      const bool tag = i % sizes_.action_dim < kTags;
      io.actions[i] = tag ? static_cast<float>(io.chunk_intent[i]) : random_.uniform(-3, 3);
    }
    const size_t at = random_.below(io.actions.size());
    if (poison_ == kActionNan) io.actions[at] = NAN;
    if (poison_ == kActionInf) io.actions[at] = -INFINITY;
  }

 private:
  const Sizes &sizes_;
  Random &random_;
  Poison &poison_;
};

class ScriptedEngines final : public Engines {
 public:
  ScriptedEngines(const Sizes &sizes, Random &random, Poison &poison)
      : sizes_(sizes), random_(random), poison_(poison) {}
  std::unique_ptr<Session> session() const override {
    return std::make_unique<ScriptedSession>(sizes_, random_, poison_);
  }

 private:
  const Sizes &sizes_;
  Random &random_;
  Poison &poison_;
};

struct Call {
  bool running = false;
  uint64_t ready = 0, began_ns = 0;  // in slots; on the true clock
  uint64_t jumps_back = 0;           // of the other clock since it began
};

struct Simulation {
  explicit Simulation(uint64_t seed_value, bool trace_it)
      : seed(seed_value), trace(trace_it), random{seed_value} {
    sizes.bins = kBins;
    sizes.chunk = random.between(1, 6);
    sizes.chunks_per_plan = random.between(1, 5);
    sizes.plan_steps = sizes.chunk * sizes.chunks_per_plan;
    sizes.action_dim = random.between(3, 6);
    sizes.predicted = sizes.chunk;
    sizes.observation_steps = 1;
    sizes.noise_shape = {sizes.chunk, sizes.action_dim};
    sizes.state_dim = 2;
    sizes.cameras = sizes.image_height = sizes.image_width = 1;
    sizes.instruction_length = 2;
    make_limits();
    make_options();
    engines = std::make_unique<ScriptedEngines>(sizes, random, poison);
    command = std::make_unique<Command>(limits);
    async = std::make_unique<Async>(sizes, *engines, options, seed, *command);
    last.assign(sizes.action_dim, 0);
    action.assign(sizes.action_dim, 0);
    change.assign(sizes.action_dim, 0);
    arriving.assign(sizes.action_dim, 1);
    period_ns = random.between(1, 50) * 1'000'000;
    late = random.chance(0.3) ? 0.2 : 0.0;
    trouble = random.chance(0.5) ? 0.01 : 0.0;
    planner_slots = random.between(0, kSlots * sizes.plan_steps);
    refiner_slots = random.between(0, kSlots * sizes.chunk);
  }

  void make_limits() {
    limits.assign(kTags, {false, false, -1, 1e7f, kFree, kFree});
    while (limits.size() < sizes.action_dim) {
      const float low = random.uniform(-2, 0.5f), high = low + random.uniform(0.1f, 2);
      const float change = random.chance(0.5) ? random.uniform(0.01f, 1) : kFree;
      const float bend = random.chance(0.3) ? random.uniform(0.01f, 1) : kFree;
      const bool delta = random.chance(0.3) && low < 0 && high > 0;
      limits.push_back({delta, random.chance(0.02), low, high, change, bend});
    }
  }

  void make_options() {
    le_run_options o = {};
    o.flags = LE_RUN_MANUAL;
    o.chunks_per_plan = random.between(0, sizes.chunks_per_plan);
    o.refill_at = random.between(0, sizes.chunks_per_plan);
    o.refine_ahead_steps = random.between(0, sizes.plan_steps);
    o.max_plan_age_steps = random.between(0, sizes.plan_steps);
    o.blend = sizes.chunk < 2 ? 0 : random.below(3);
    o.blend_steps = o.blend == LE_BLEND_NONE ? 0 : random.between(1, sizes.chunk - 1);
    o.frozen_steps = o.blend == LE_BLEND_FREEZE ? random.between(0, o.blend_steps) : 0;
    o.max_observation_age_ns = random.between(20, 500) * uint64_t{1'000'000};
    o.engine_timeout_ns = random.between(20, 2000) * uint64_t{1'000'000};
    options = complete_options(o, sizes);
  }

  [[noreturn]] void broken(const char *what) {
    std::printf("seed %llu, tick %llu: %s\n", static_cast<unsigned long long>(seed),
                static_cast<unsigned long long>(ticks), what);
    std::exit(1);
  }
  void require(bool holds, const char *what) {
    if (!holds) broken(what);
  }

  uint64_t clock_ns() const { return kHour * 1000 + true_ns + static_cast<uint64_t>(offset_ns); }

  void observe(bool smooth) {
    uint8_t pixels[3] = {1, 2, 3};
    const float state[2] = {static_cast<float>(step), 0};
    const uint64_t delay = !smooth && random.chance(late) ? random.below(40) * period_ns / 4 : 0;
    le_observation o = {};
    o.images = pixels;
    o.state = state;
    o.timestamp_ns = clock_ns() - std::min(delay, true_ns);
    if (!smooth && random.chance(trouble / 4)) {
      async->latch(LE_REASON_STATE_NOT_FINITE);  // what le_observe does with such a state
      return;
    }
    async->observe(o);
    observed = true;
    handed_ns = true_ns;
    back_since_handed = 0;
  }

  template <typename Begin, typename Run, typename Finish>
  void engine(Call &call, uint64_t usual, bool smooth, Begin begin, Run run, Finish finish) {
    if (call.running && call.ready <= slot) {
      finish();
      call.running = false;
    }
    if (call.running || (!smooth && random.chance(0.1)) || !begin()) return;
    poison = kNone;
    if (!smooth && random.chance(trouble)) poison = static_cast<Poison>(random.between(1, 6));
    run();
    poison = kNone;
    const bool stall = !smooth && random.chance(0.02);
    const uint64_t jitter = smooth ? 0 : random.below(3) + (stall ? random.below(400) : 0);
    call = {true, slot + (smooth ? 0 : usual) + jitter, true_ns, 0};
    if (call.ready > slot) return;
    finish();
    call.running = false;
  }

  void run_engines(bool smooth) {
    const auto plan = [&] {
      engine(
          planner, planner_slots, smooth, [&] { return async->begin_plan(); },
          [&] { async->run_plan(); }, [&] { async->finish_plan(); });
    };
    const auto refine = [&] {
      engine(
          refiner, refiner_slots, smooth, [&] { return async->begin_chunk(); },
          [&] { async->run_chunk(); }, [&] { finish_chunk(); });
    };
    if (random.chance(0.5)) {
      plan(), refine();
    } else {
      refine(), plan();
    }
  }

  // What is committed stays bit for bit; from there on each action lies between the old and the new
  // one, ever closer to the new; what is not shared is the refiner's own.
  void finish_chunk() {
    const Chunk before = async->last_chunk_;
    const uint64_t end = async->queue_end_, chunks = async->chunks_.load();
    const std::vector<float> raw = async->refiner_.session->io.actions;
    async->finish_chunk();
    if (async->chunks_.load() == chunks) return;
    const Chunk &chunk = async->last_chunk_;
    require(chunk.end() > end || end > step, "a chunk adds no step");
    const bool blended = options.blend != LE_BLEND_NONE;
    // Where nobody asked for a number of steps, the last planned ones may begin before the queue
    // ends.
    const bool takes_over = options.refine_ahead_steps == 0;
    require(blended || takes_over || end <= std::max(step, chunk.first),
            "chunks overlap without a blend");
    std::vector<double> share(sizes.action_dim, 0);
    for (uint64_t i = 0; i < sizes.chunk; ++i) {
      const uint64_t at = chunk.first + i;
      const bool committed = blended && at < end && (at < step || i < options.frozen_steps);
      for (uint32_t d = 0; d < sizes.action_dim; ++d) {
        const float found = chunk.actions[i * sizes.action_dim + d];
        const float wanted = raw[i * sizes.action_dim + d];
        if (!blended || at >= end) {
          require(found == wanted, "an action of the new chunk was changed");
          continue;
        }
        const float old = before.actions[(at - before.first) * sizes.action_dim + d];
        require(!committed || found == old, "a committed action was changed");
        if (committed || std::fabs(wanted - old) < 1e-2f) continue;
        const double now = (double{found} - old) / (double{wanted} - old);
        require(now > share[d] && now < 1, "the new chunk does not fade in step by step");
        share[d] = now;
      }
      frozen += committed && at >= step;
    }
  }

  // A plan from a step of the past, or the present one once more.
  void repeat_a_plan() {
    const uint64_t from = step - std::min<uint64_t>(step, random.below(2 * sizes.plan_steps));
    std::vector<int32_t> intents(sizes.plan_count());
    for (uint32_t l = 0; l < sizes.plan_steps; ++l) {
      intents[size_t{l} * sizes.action_dim] = static_cast<int32_t>(from);
      intents[size_t{l} * sizes.action_dim + 1] = static_cast<int32_t>(from + l);
    }
    const int64_t before = async->intents_.plan_step();
    async->take_plan(from, intents.data());
    const int64_t after = async->intents_.plan_step();
    require(after == before || (after > before && after == static_cast<int64_t>(from)),
            "a plan that is not newer was taken");
  }

  void reset() {
    async->reset(seed + step);
    step = 0;
    observed = faulted = false;
    last_info = {};
    last_info.plan_step = -1;
  }

  void tick() {
    le_tick_info info = {};
    async->tick(clock_ns(), action.data(), &info);
    if (trace) {
      std::printf("%6llu step %llu state %u reason %2u plan %lld chunk %llu queue %u:",
                  static_cast<unsigned long long>(ticks), static_cast<unsigned long long>(step),
                  info.state, info.reason, static_cast<long long>(info.plan_step),
                  static_cast<unsigned long long>(info.chunk), info.queue_steps);
      for (const float value : action) std::printf(" %g", static_cast<double>(value));
      std::printf("\n");
    }
    check_state(info);
    check_limits(info);
    if (info.state == LE_RUNNING) {
      check_plan(info);
      check_time();
      ++running;
    }
    for (size_t d = 0; d < action.size(); ++d) {
      // A delta sets out from zero; of the others nobody knows where they were before the first.
      const bool known = (sent || limits[d].delta) && info.state == LE_RUNNING;
      change[d] = known ? action[d] - last[d] : 0;
    }
    last = action;
    sent = sent || info.state == LE_RUNNING;
    last_info = info;
    ++step;
    ++ticks;
  }

  void check_state(const le_tick_info &info) {
    require(info.step == step, "steps are not counted one by one");
    require(info.chunks_seen >= last_info.chunks_seen, "a chunk was lost");
    const bool holds =
        info.reason == LE_REASON_NO_OBSERVATION ||
        (info.reason >= LE_REASON_OBSERVATION_TOO_OLD && info.reason <= LE_REASON_UNDERRUN);
    const bool fault = (info.reason >= LE_REASON_STATE_NOT_FINITE &&
                        info.reason <= LE_REASON_INTENT_OUT_OF_RANGE) ||
                       info.reason == LE_REASON_OUT_OF_LIMITS;
    require(info.state != LE_RUNNING || info.reason == LE_REASON_NONE, "RUNNING with a reason");
    require(info.state != LE_HOLD || holds, "HOLD with a reason that is none");
    require(info.state != LE_FAULT || fault, "FAULT with a reason that is none");
    require(!faulted || info.state == LE_FAULT, "FAULT ended without a reset");
    require(observed || info.state != LE_RUNNING, "RUNNING before any observation");
    faulted = info.state == LE_FAULT;
  }

  void check_limits(const le_tick_info &info) {
    for (size_t d = 0; d < action.size(); ++d) {
      const ActionLimit &of = limits[d];
      require(std::isfinite(action[d]), "an action is not finite");
      require(action[d] >= of.lower && action[d] <= of.upper, "a position limit was exceeded");
      if (info.state != LE_RUNNING) {
        const float kept = sent ? last[d] : std::clamp(0.0f, of.lower, of.upper);
        require(action[d] == (of.delta ? 0.0f : kept), "HOLD moved the robot");
      } else if (sent) {
        // One rounding of last ± change.
        const float slack = 1e-6f * (1 + std::fabs(last[d]));
        require(std::fabs(action[d] - last[d]) <= of.max_step_change + slack,
                "a limit on change was exceeded");
        const float bend = std::fabs(action[d] - last[d] - change[d]);
        require(bend <= of.max_acceleration * (1 + 1e-6f) + 4 * slack,
                "a limit on bend was exceeded");
      }
      const uint64_t bit = uint64_t{1} << d;
      arriving[d] = info.state != LE_RUNNING || (arriving[d] && (info.slowed_mask & bit) != 0);
      const uint64_t past = info.clamped_mask | (arriving[d] ? 0 : info.slowed_mask);
      require(!of.fault || info.state != LE_RUNNING || (past & bit) == 0,
              "RUNNING past a limit that is a fault");
    }
  }

  void check_plan(const le_tick_info &info) {
    require(action[1] == static_cast<float>(step), "an action of another step was sent");
    const int64_t age = static_cast<int64_t>(step) - info.plan_step;
    require(info.plan_age_steps == age, "the age of the plan is wrong");
    require(age >= 0 && age <= options.max_plan_age_steps, "an action of a plan that is too old");
    require(action[0] >= static_cast<float>(info.plan_step), "the plan is older than it says");
    if (options.blend == LE_BLEND_NONE) {
      require(action[0] == static_cast<float>(info.plan_step), "the plan is another one");
    }
    require(info.plan_step >= last_info.plan_step || last_info.state != LE_RUNNING ||
                options.blend != LE_BLEND_NONE,
            "plans went backwards");
    require(info.chunk >= last_info.chunk || last_info.state != LE_RUNNING,
            "chunks went backwards");
  }

  // The true clock knows what the jumping one cannot; a jump back hides one period.
  void check_time() {
    const uint64_t hidden = (2 + back_since_handed) * period_ns;
    require(true_ns - handed_ns <= options.max_observation_age_ns + hidden,
            "RUNNING on an old observation");
    for (const Call *call : {&planner, &refiner}) {
      const uint64_t most_ns = options.engine_timeout_ns + (2 + call->jumps_back) * period_ns;
      require(!call->running || true_ns - call->began_ns <= most_ns,
              "RUNNING while an engine is stuck");
    }
  }

  void jump() {
    const int64_t by =
        static_cast<int64_t>(random.below(2) == 0 ? kHour : random.below(1000000000));
    const bool back = random.chance(0.5);
    offset_ns += back ? -by : by;
    back_since_handed += back;
    planner.jumps_back += back;
    refiner.jumps_back += back;
  }

  void period(bool smooth) {
    const int seen_at = smooth ? 0 : static_cast<int>(random.below(kSlots));
    for (int i = 0; i < kSlots; ++i, ++slot) {
      if (i == seen_at && (smooth || !random.chance(late))) observe(smooth);
      if (!smooth && random.chance(0.01)) repeat_a_plan();
      run_engines(smooth);
      true_ns += period_ns / kSlots;
    }
    if (!smooth && random.chance(0.01)) jump();
    if (!smooth && random.chance(0.005)) {
      async->set_chunks_per_plan(random.between(1, sizes.chunks_per_plan));
    }
    tick();
    if (!smooth && (faulted ? random.chance(0.1) : random.chance(0.003))) reset();
  }

  void describe() const {
    std::printf(
        "H %u M %u, chunks_per_plan %u refill_at %u refine_ahead %u max_plan_age %u blend %u "
        "steps %u frozen %u, period %llu ms, observation %llu ms, timeout %llu ms\n",
        sizes.chunk, sizes.chunks_per_plan, options.chunks_per_plan, options.refill_at,
        options.refine_ahead_steps, options.max_plan_age_steps, options.blend, options.blend_steps,
        options.frozen_steps, static_cast<unsigned long long>(period_ns / 1'000'000),
        static_cast<unsigned long long>(options.max_observation_age_ns / 1'000'000),
        static_cast<unsigned long long>(options.engine_timeout_ns / 1'000'000));
  }

  void episode() {
    if (trace) describe();
    const int64_t tokens[2] = {1, 2};
    async->set_instruction(tokens);
    last_info.plan_step = -1;
    for (uint32_t i = random.between(20, 300); i > 0; --i) period(false);
    recover();
    le_stats_info stats = {};
    async->stats(&stats);
    require(stats.ticks == ticks && stats.running_ticks == running, "the statistics are wrong");
  }

  // Whatever happened: with engines that answer at once the robot has to move again.
  void recover() {
    for (Call *call : {&planner, &refiner}) call->ready = 0;
    for (uint32_t i = 0; i < 4 * sizes.plan_steps; ++i) {
      period(true);
      if (faulted) reset();
    }
    uint64_t before = running;
    for (uint32_t i = 0; i < 10 + 3 * sizes.plan_steps && !faulted; ++i) period(true);
    // A bound below the age that plans and observations reach by themselves asks for holds.
    const bool possible = options.max_plan_age_steps + 1 >= sizes.plan_steps &&
                          options.max_observation_age_ns >= period_ns;
    require(running > before || faulted || !possible, "the policy does not recover");
  }

  uint64_t seed;
  bool trace;
  Random random;
  Sizes sizes = {};
  std::vector<ActionLimit> limits;
  le_run_options options = {};
  Poison poison = kNone;
  std::unique_ptr<ScriptedEngines> engines;
  std::unique_ptr<Command> command;
  std::unique_ptr<Async> async;
  Call planner, refiner;
  std::vector<float> action, last, change;
  std::vector<char> arriving;
  uint64_t period_ns = 0, true_ns = 0, handed_ns = 0, slot = 0, step = 0, ticks = 0, running = 0;
  uint64_t frozen = 0;  // steps kept for frozen_steps' sake
  uint64_t planner_slots = 0, refiner_slots = 0;
  uint64_t back_since_handed = 0;
  int64_t offset_ns = 0;
  double late = 0, trouble = 0;
  bool observed = false, faulted = false, sent = false;
  le_tick_info last_info = {};
};

}  // namespace le

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  const uint64_t first = std::strtoull(argv[1], nullptr, 10);
  const uint64_t count = std::strtoull(argv[2], nullptr, 10);
  const bool trace = argc > 3 && std::strcmp(argv[3], "trace") == 0;
  uint64_t ticks = 0, running = 0, frozen = 0;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    const auto simulation = std::make_unique<le::Simulation>(seed, trace);
    simulation->episode();
    ticks += simulation->ticks;
    running += simulation->running;
    frozen += simulation->frozen;
  }
  std::printf("%llu episodes, %llu ticks, %llu RUNNING, %llu steps frozen\n",
              static_cast<unsigned long long>(count), static_cast<unsigned long long>(ticks),
              static_cast<unsigned long long>(running), static_cast<unsigned long long>(frozen));
  return 0;
}
