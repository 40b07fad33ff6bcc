// Names, element types and shapes of the two graphs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace le {

// Sizes that the manifest fixes; libra_edge.h explains the symbols.
struct Sizes {
  uint32_t bins, chunk, chunks_per_plan, plan_steps, denoise_steps;
  uint32_t action_dim, state_dim, cameras, image_height, image_width, instruction_length;

  uint64_t image_bytes() const { return uint64_t{3} * cameras * image_height * image_width; }
  uint64_t plan_count() const { return uint64_t{plan_steps} * action_dim; }
  uint64_t chunk_count() const { return uint64_t{chunk} * action_dim; }
};

// Numbers of ONNX Runtime's ONNXTensorElementDataType.
enum class ElementType : int { kFloat32 = 1, kUint8 = 2, kInt32 = 6, kInt64 = 7 };

struct TensorSpec {
  const char *name;
  ElementType type;
  std::vector<int64_t> shape;

  uint64_t bytes() const;
};

const char *type_name(ElementType type);
std::string describe(const TensorSpec &spec);

struct Signature {
  std::vector<TensorSpec> inputs, outputs;
};

Signature planner_signature(const Sizes &sizes);
Signature refiner_signature(const Sizes &sizes);

}  // namespace le
