// The policy behind a handle: two engines, the synchronous execution semantics, and async mode.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/async.h"
#include "control/command.h"
#include "control/threads.h"
#include "engine/engines.h"
#include "libra_edge.h"
#include "release/manifest.h"
#include "release/tokenizer.h"

struct le_policy {
 public:
  // Throws le::Error.
  le_policy(le::Manifest manifest, std::optional<le::Tokenizer> tokenizer,
            std::unique_ptr<const le::Engines> engines, const le_open_options &options);
  le_policy(const le_policy &) = delete;  // sessions point into it
  le_policy &operator=(const le_policy &) = delete;

  void info(le_policy_info *info) const;
  // False for another number than LE_PLANNER and LE_REFINER.
  bool engine(uint32_t engine, le_engine_info *info) const;
  // nullptr for a camera or a dimension that there is not.
  const char *camera_name(uint32_t camera) const;
  bool camera_size(uint32_t camera, uint32_t *height, uint32_t *width) const;
  bool state_dim(uint32_t dim, le_dim_info *info) const;
  bool action_dim(uint32_t dim, le_dim_info *info) const;
  void tokenize(const char *text, int64_t *tokens, uint32_t count) const;
  void set_instruction(const int64_t *tokens, uint32_t count);
  void observe(const le_observation &observation);
  // Returns what the step has to say about a fault it met; empty otherwise.
  std::string step(float *action, uint32_t count, le_step_info *info);
  void reset(uint64_t seed);
  void plan(const le_observation &observation, const int64_t *tokens, uint32_t token_count,
            int32_t *intent, float *margin, uint64_t count);
  void refine(const le_observation &observation, const int32_t *intent, const float *noise,
              float *actions, uint64_t count);

  void start(const le_run_options &options);
  void stop();
  // False, touching nothing, where an argument is wrong or async mode is off. Never throws.
  bool tick(uint64_t now_ns, float *action, uint32_t count, le_tick_info *info) noexcept;
  void set_chunks_per_plan(uint32_t chunks);
  bool work(uint32_t work);
  void last_plan(int32_t *intent, uint64_t count) const;
  void stats(le_stats_info *stats) const;
  std::string fault_text();

 private:
  bool has_words() const { return manifest_.sizes.instruction_length > 0; }
  void check_observation(const le_observation &observation, uint32_t steps) const;
  void check_planner() const;
  void check_tokens(const int64_t *tokens, uint32_t count) const;
  void check_async() const;
  void load(le::Io &io, const le_observation &observation) const;
  uint64_t observation_age_ns() const;
  le_reason waits_for() const;
  bool has_action() const;
  void look_ahead(le_step_info *info);
  std::string make_chunk(le_step_info *info);
  std::string act(float *action, le_step_info *info);

  const le::Manifest manifest_;
  const std::optional<le::Tokenizer> tokenizer_;  // where there are instructions
  const std::unique_ptr<const le::Engines> engines_;
  const le::EnginesInfo engines_info_;
  const uint32_t threads_;
  const uint64_t max_observation_age_ns_;
  std::unique_ptr<le::Session> control_, direct_;
  le::Command command_;

  bool has_instruction_ = false;
  uint64_t seed_ = 0;
  bool has_observation_ = false;
  uint64_t observed_step_ = 0;  // the step that was next when it came
  uint64_t seen_step_ = 0;      // up to which the control session's inputs look back
  uint64_t timestamp_ns_ = 0;
  le_reason fault_ = LE_REASON_NONE;
  std::string fault_text_;
  uint64_t step_ = 0;
  uint64_t chunks_made_ = 0;
  uint64_t chunk_step_ = 0;  // the first step of the newest chunk
  int64_t plan_step_ = -1;

  le_run_options run_ = {};
  std::unique_ptr<le::Async> async_;
  std::unique_ptr<le::Workers> workers_;  // after what they work on
};
