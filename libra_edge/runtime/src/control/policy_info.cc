// What a policy tells about its release.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "control/policy.h"
#include "error.h"

using le::fail;

namespace {

uint32_t kind_of(const std::string &kind) {
  if (kind.empty()) return LE_KIND_NONE;
  if (kind == "delta") return LE_KIND_DELTA;
  return kind == "gripper" ? LE_KIND_GRIPPER : LE_KIND_ABSOLUTE;
}

void describe(const le::Dimension &dimension, le_dim_info *info) {
  info->name = dimension.name.c_str();
  info->unit = dimension.unit.c_str();
  info->kind = kind_of(dimension.kind);
}

}  // namespace

void le_policy::info(le_policy_info *info) const {
  const le::Sizes &sizes = manifest_.sizes;
  info->abi_version = LE_ABI_VERSION;
  info->bins = sizes.bins;
  info->chunk = sizes.chunk;
  info->chunks_per_plan = sizes.chunks_per_plan;
  info->plan_steps = sizes.plan_steps;
  info->denoise_steps = sizes.denoise_steps;
  info->action_dim = sizes.action_dim;
  info->state_dim = sizes.state_dim;
  info->cameras = sizes.cameras;
  info->image_height = sizes.image_height;
  info->image_width = sizes.image_width;
  info->instruction_length = sizes.instruction_length;
  info->threads = threads_;
  info->control_hz = manifest_.control_hz;
  info->name = manifest_.name.c_str();
  info->target = manifest_.target.c_str();
  info->recipe = manifest_.recipe.c_str();
  info->arch = le::own_arch();
  info->onnxruntime_version = manifest_.onnxruntime_version.c_str();
  std::copy(manifest_.sha256.begin(), manifest_.sha256.end(), info->manifest_sha256);
  info->predicted = sizes.predicted;
  info->observation_steps = sizes.observation_steps;
  info->noise_count = sizes.noise_count();
  info->flags = (manifest_.verdict == "fail" ? LE_INFO_PARITY_FAILED : 0) |
                (manifest_.verdict == "not measured" ? LE_INFO_PARITY_NOT_MEASURED : 0) |
                (manifest_.random_weights ? LE_INFO_RANDOM_WEIGHTS : 0);
  if (!has_words()) return;
  info->vocabulary = tokenizer_->vocabulary();
  info->pad_token = tokenizer_->pad();
  info->unknown_token = tokenizer_->unknown();
}

bool le_policy::engine(uint32_t engine, le_engine_info *info) const {
  if (engine > LE_REFINER) return false;
  const le::EngineInfo &facts =
      engine == LE_PLANNER ? engines_info_.planner : engines_info_.refiner;
  info->status = facts.status;
  info->provider = facts.provider.c_str();
  info->device = facts.on_gpu ? engines_info_.device.c_str() : "";
  info->driver = facts.on_gpu ? engines_info_.driver.c_str() : "";
  info->device_memory_bytes = facts.on_gpu ? engines_info_.device_memory_bytes : 0;
  return true;
}

const char *le_policy::camera_name(uint32_t camera) const {
  return camera < manifest_.cameras.size() ? manifest_.cameras[camera].c_str() : nullptr;
}

bool le_policy::camera_size(uint32_t camera, uint32_t *height, uint32_t *width) const {
  const le::Sizes &sizes = manifest_.sizes;
  if (camera >= sizes.cameras) return false;
  const bool alike = sizes.camera_sizes.empty();
  *height = alike ? sizes.image_height : sizes.camera_sizes[camera].height;
  *width = alike ? sizes.image_width : sizes.camera_sizes[camera].width;
  return true;
}

bool le_policy::state_dim(uint32_t dim, le_dim_info *info) const {
  if (dim >= manifest_.state.size()) return false;
  describe(manifest_.state[dim], info);
  info->lower = -HUGE_VALF;
  info->upper = info->max_step_change = info->max_acceleration = info->max_jerk = HUGE_VALF;
  return true;
}

bool le_policy::action_dim(uint32_t dim, le_dim_info *info) const {
  if (dim >= manifest_.actions.size()) return false;
  describe(manifest_.actions[dim], info);
  const le::ActionLimit &limit = manifest_.limits[dim];
  info->lower = limit.lower;
  info->upper = limit.upper;
  info->max_step_change = limit.max_step_change;
  info->max_acceleration = limit.max_acceleration;
  info->max_jerk = limit.max_jerk;
  info->flags = limit.fault ? LE_DIM_FAULTS : 0;
  return true;
}

void le_policy::tokenize(const char *text, int64_t *tokens, uint32_t count) const {
  const uint32_t length = manifest_.sizes.instruction_length;
  if (!has_words()) fail(LE_INVALID_ARGUMENT, "This policy takes no instruction.");
  if (text == nullptr || tokens == nullptr || count != length) {
    fail(LE_INVALID_ARGUMENT, "tokenize needs a text and room for %u tokens.", length);
  }
  const std::vector<int64_t> found = tokenizer_->encode(text, length);
  if (found.size() > length) {
    fail(LE_INVALID_ARGUMENT, "The text has %zu tokens; this policy takes %u.", found.size(),
         length);
  }
  int64_t *end = std::copy(found.begin(), found.end(), tokens);
  std::fill(end, tokens + length, tokenizer_->pad());
}
