// Every thread of async mode at once, with scripted engines: for ThreadSanitizer and its kin.
//
//     stress ROUNDS
//
// Exit status 1 where an action is not what the engines gave, 2 where nothing ever ran.

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <thread>

#include "control/policy.h"

namespace {

constexpr uint32_t kChunk = 4, kDims = 3;
constexpr int64_t kTokens = 97;
using Clock = std::chrono::steady_clock;

void pause_us(int64_t us) {
  std::this_thread::sleep_for(std::chrono::microseconds(us));
}

uint64_t now_ns() {
  return static_cast<uint64_t>(Clock::now().time_since_epoch().count());
}

// The planner says which observation it saw; the refiner hands that on.
class Scripted final : public le::Session {
 public:
  using le::Session::Session;
  void plan() override {
    for (int32_t &intent : io.plan_intent) intent = io.images[0];
    std::fill(io.margin.begin(), io.margin.end(), 1.0f);
    pause_us(1500);
  }
  void refine() override {
    for (size_t i = 0; i < io.actions.size(); ++i) {
      io.actions[i] = static_cast<float>(io.chunk_intent[i]);
    }
    pause_us(700);
  }
};

class Engines final : public le::Engines {
 public:
  explicit Engines(const le::Sizes &sizes) : sizes_(sizes) {}
  std::unique_ptr<le::Session> session() const override {
    return std::make_unique<Scripted>(sizes_);
  }

 private:
  le::Sizes sizes_;
};

le::Manifest manifest() {
  le::Manifest m = {};
  m.name = "stress";
  m.control_hz = 1000;
  m.sizes = {256, kChunk, 4, 4 * kChunk, 1, kDims, 2, 1, 64, 64, 3, kChunk, 1, {}, {kChunk, kDims}};
  const float free = std::numeric_limits<float>::infinity();
  m.limits.assign(kDims, {false, false, 0, 255, free, free});
  return m;
}

// Knows the tokens 0 to kTokens - 1.
le::Tokenizer tokenizer() {
  std::string text =
      R"({"model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[PAD]": 0)";
  for (int64_t i = 1; i < kTokens; ++i) {
    text += ", \"w" + std::to_string(i) + "\": " + std::to_string(i);
  }
  text += "}}}";
  return {reinterpret_cast<const uint8_t *>(text.data()), text.size()};
}

struct Round {
  le_policy &policy;
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> running{0}, wrong{0};

  void tick() {
    for (; !stop; pause_us(900)) {
      float action[kDims];
      le_tick_info info = {};
      if (!policy.tick(now_ns(), action, kDims, &info)) std::abort();
      if (info.state != LE_RUNNING) continue;
      ++running;
      for (const float value : action) wrong += value != action[0] || value < 1 || value > 200;
    }
  }

  void observe() {
    std::vector<uint8_t> images(64 * 64 * 3);
    const float state[2] = {1, 2};
    for (uint8_t frame = 1; !stop; frame = static_cast<uint8_t>(frame % 200 + 1), pause_us(400)) {
      std::fill(images.begin(), images.end(), frame);
      le_observation o = {};
      o.state_count = 2;
      o.images = images.data();
      o.image_bytes = images.size();
      o.state = state;
      o.timestamp_ns = now_ns();
      policy.observe(o);
    }
  }

  void meddle() {
    for (uint32_t i = 0; !stop; ++i, pause_us(1100)) {
      const int64_t tokens[3] = {i % kTokens, (i + 1) % kTokens, (i + 2) % kTokens};
      policy.set_instruction(tokens, 3);
      policy.set_chunks_per_plan(i % 4 + 1);
      le_stats_info stats = {};
      policy.stats(&stats);
    }
  }

  void run() {
    std::thread threads[] = {std::thread([this] { tick(); }), std::thread([this] { observe(); }),
                             std::thread([this] { meddle(); })};
    pause_us(300'000);
    stop = true;
    for (std::thread &thread : threads) thread.join();
  }
};

}  // namespace

int main(int argc, char **argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 3;
  le::Manifest m = manifest();
  auto engines = std::make_unique<Engines>(m.sizes);
  le_open_options options = {};
  options.threads = 1;
  options.seed = 1;
  le_policy policy(std::move(m), tokenizer(), std::move(engines), options);
  uint64_t running = 0;
  for (int i = 0; i < rounds; ++i) {
    le_run_options options = {};
    options.refill_at = 2;
    options.poll_ns = 100'000;
    options.blend = i % 2 == 0 ? LE_BLEND_NONE : LE_BLEND_LINEAR;
    options.blend_steps = i % 2 == 0 ? 0 : 2;
    policy.start(options);
    for (int resets = 0; resets < 3; ++resets) {
      Round round{policy};
      round.run();
      running += round.running;
      if (round.wrong != 0) return std::printf("a torn action\n"), 1;
      policy.reset(static_cast<uint64_t>(resets));  // with engine calls in flight
    }
    policy.stop();
  }
  std::printf("%llu running ticks\n", static_cast<unsigned long long>(running));
  return running > 0 ? 0 : 2;
}
