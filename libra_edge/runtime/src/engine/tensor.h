// Names, element types and shapes of the two graphs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace le {

struct ImageSize {
  uint32_t height, width;
};

// Sizes that the manifest fixes; libra_edge.h explains the symbols.
struct Sizes {
  uint32_t bins, chunk, chunks_per_plan, plan_steps, denoise_steps;
  uint32_t action_dim, state_dim, cameras, image_height, image_width, instruction_length;
  // Without a planner: control steps that one refiner call gives, and that it looks back.
  uint32_t predicted, observation_steps;
  std::vector<ImageSize> camera_sizes;  // empty: all are image_height x image_width
  std::vector<int64_t> noise_shape;     // empty: there is no noise

  // Without one, each chunk is made from the observation alone, and executed from its first step.
  bool plans() const { return bins > 0; }
  // Of one observation.
  uint64_t image_bytes() const {
    uint64_t bytes = uint64_t{3} * cameras * image_height * image_width;
    if (!camera_sizes.empty()) bytes = 0;
    for (const ImageSize &size : camera_sizes) bytes += uint64_t{3} * size.height * size.width;
    return bytes;
  }
  // Of all that the engines look at.
  uint64_t seen_bytes() const { return observation_steps * image_bytes(); }
  uint64_t seen_numbers() const { return uint64_t{observation_steps} * state_dim; }
  uint64_t plan_count() const { return plans() ? uint64_t{plan_steps} * action_dim : 0; }
  uint64_t intent_count() const { return plans() ? uint64_t{chunk} * action_dim : 0; }
  uint64_t chunk_count() const { return uint64_t{predicted} * action_dim; }
  uint64_t noise_count() const {
    uint64_t count = noise_shape.empty() ? 0 : 1;
    for (const int64_t extent : noise_shape) count *= static_cast<uint64_t>(extent);
    return count;
  }
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
