// What runs the two graphs, behind an interface that tests can script.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace le {

// Inputs and outputs of both graphs for one caller at a time.
struct Io {
  explicit Io(const Sizes &sizes)
      : images(sizes.seen_bytes()),
        instruction(sizes.instruction_length),
        state(sizes.seen_numbers()),
        plan_intent(sizes.plan_count()),
        margin(sizes.plan_count()),
        chunk_intent(sizes.intent_count()),
        noise(sizes.noise_count()),
        actions(sizes.chunk_count()) {}

  std::vector<uint8_t> images;
  std::vector<int64_t> instruction;
  std::vector<float> state;
  std::vector<int32_t> plan_intent;
  std::vector<float> margin;
  std::vector<int32_t> chunk_intent;
  std::vector<float> noise;
  std::vector<float> actions;
};

// One caller's memory, and the engines that read and write it. Throws Error where one cannot run.
class Session {
 public:
  explicit Session(const Sizes &sizes) : io(sizes) {}
  virtual ~Session() = default;
  Session(const Session &) = delete;  // engines point into it
  Session &operator=(const Session &) = delete;

  virtual void plan() = 0;
  virtual void refine() = 0;

  Io io;
};

// What runs one graph.
struct EngineInfo {
  uint32_t status;  // LE_ENGINE_...
  std::string provider;
  bool on_gpu;
};

struct EnginesInfo {
  EngineInfo planner, refiner;
  std::string device, driver;
  uint64_t device_memory_bytes;
};

class Engines {
 public:
  virtual ~Engines() = default;
  virtual EnginesInfo info() const { return {}; }
  // Sessions of the same engines may run at the same time.
  virtual std::unique_ptr<Session> session() const = 0;
};

}  // namespace le
