// The policy behind a handle: two engines and the synchronous execution semantics.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine.h"
#include "libra_edge.h"
#include "manifest.h"
#include "ort.h"
#include "release.h"

namespace le {

// Memory and tensors of one planner and one refiner call.
struct Workspace {
  Workspace(const Sizes &sizes, const Engine &planner_engine, const Engine &refiner_engine);

  std::vector<uint8_t> images;
  std::vector<int64_t> instruction;
  std::vector<float> state;
  std::vector<int32_t> plan_intent;
  std::vector<float> margin;
  std::vector<int32_t> chunk_intent;
  std::vector<float> noise;
  std::vector<float> actions;
  Binding planner, refiner;
};

}  // namespace le

struct le_policy {
 public:
  // Throws le::Error.
  le_policy(le::Release release, uint32_t threads, uint64_t seed);
  le_policy(const le_policy &) = delete;  // the engines point into it
  le_policy &operator=(const le_policy &) = delete;

  void info(le_policy_info *info) const;
  void set_instruction(const int64_t *tokens, uint32_t count);
  void observe(const le_observation &observation);
  // Returns what the step has to say about a fault it met; empty otherwise.
  std::string step(float *action, uint32_t count, le_step_info *info);
  void reset(uint64_t seed);
  void plan(const le_observation &observation, const int64_t *tokens, uint32_t token_count,
            int32_t *intent, float *margin, uint64_t count);
  void refine(const le_observation &observation, const int32_t *intent, const float *noise,
              float *actions, uint64_t count);

 private:
  void check_observation(const le_observation &observation) const;
  void check_tokens(const int64_t *tokens, uint32_t count) const;
  void load(le::Workspace &work, const le_observation &observation) const;
  le_reason run_planner(le::Workspace &work) const;
  le_reason run_refiner(le::Workspace &work) const;
  le_reason waits_for() const;
  std::string make_chunk(le_step_info *info);
  void act(float *action, le_step_info *info);
  void hold(float *action, le_step_info *info) const;

  le::Manifest manifest_;
  le::Digest manifest_sha256_;
  uint32_t threads_;
  le::Ort ort_;
  le::OrtHandle<le::OrtEnv> env_;
  le::Engine planner_, refiner_;
  le::Workspace control_, direct_;

  bool has_instruction_ = false;
  bool has_command_ = false;
  std::vector<float> command_;

  uint64_t seed_ = 0;
  bool has_observation_ = false;
  uint64_t timestamp_ns_ = 0;
  le_reason fault_ = LE_REASON_NONE;
  uint64_t step_ = 0;
  uint64_t chunks_made_ = 0;
  uint32_t actions_left_ = 0;
  uint32_t intents_left_ = 0;
  int64_t plan_step_ = -1;
};
