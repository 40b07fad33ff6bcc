#include "engine/tensor.h"

namespace le {
namespace {

std::vector<int64_t> image_shape(const Sizes &s) {
  return {s.cameras, s.image_height, s.image_width, 3};
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
  const std::vector<int64_t> chunk = {s.chunk, s.action_dim};
  return {{{"images", ElementType::kUint8, image_shape(s)},
           {"state", ElementType::kFloat32, {s.state_dim}},
           {"intent", ElementType::kInt32, chunk},
           {"noise", ElementType::kFloat32, chunk}},
          {{"actions", ElementType::kFloat32, chunk}}};
}

}  // namespace le
