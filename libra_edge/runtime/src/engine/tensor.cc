#include "engine/tensor.h"

namespace le {
namespace {

std::vector<int64_t> image_shape(const Sizes &s) {
  std::vector<int64_t> shape = {s.cameras, s.image_height, s.image_width, 3};
  if (!s.camera_sizes.empty()) shape = {static_cast<int64_t>(s.image_bytes())};
  if (s.observation_steps > 1) shape.insert(shape.begin(), s.observation_steps);
  return shape;
}

}  // namespace

const char *type_name(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return "float32";
    case ElementType::kUint8:
      return "uint8";
    case ElementType::kInt32:
      return "int32";
    case ElementType::kInt64:
      return "int64";
  }
  return "another type";
}

uint64_t TensorSpec::bytes() const {
  uint64_t size = type == ElementType::kUint8 ? 1 : type == ElementType::kInt64 ? 8 : 4;
  for (const int64_t extent : shape) size *= static_cast<uint64_t>(extent);
  return size;
}

std::string describe(const TensorSpec &spec) {
  std::string text = std::string(spec.name) + " " + type_name(spec.type) + " [";
  for (size_t i = 0; i < spec.shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(spec.shape[i]);
  }
  return text + "]";
}

Signature planner_signature(const Sizes &s) {
  const std::vector<int64_t> plan = {s.plan_steps, s.action_dim};
  return {{{"images", ElementType::kUint8, image_shape(s)},
           {"instruction", ElementType::kInt64, {s.instruction_length}},
           {"state", ElementType::kFloat32, {s.state_dim}}},
          {{"intent", ElementType::kInt32, plan}, {"margin", ElementType::kFloat32, plan}}};
}

Signature refiner_signature(const Sizes &s) {
  std::vector<int64_t> state = {s.state_dim};
  if (s.observation_steps > 1) state.insert(state.begin(), s.observation_steps);
  std::vector<TensorSpec> inputs = {{"images", ElementType::kUint8, image_shape(s)}};
  if (!s.plans() && s.instruction_length > 0) {
    inputs.push_back({"instruction", ElementType::kInt64, {s.instruction_length}});
  }
  inputs.push_back({"state", ElementType::kFloat32, state});
  if (s.plans()) inputs.push_back({"intent", ElementType::kInt32, {s.chunk, s.action_dim}});
  if (s.noise_count() > 0) inputs.push_back({"noise", ElementType::kFloat32, s.noise_shape});
  return {inputs, {{"actions", ElementType::kFloat32, {s.predicted, s.action_dim}}}};
}

}  // namespace le
