// An engine's tensors in the memory of a device, allocated once.
#pragma once

#include <mutex>
#include <vector>

#include "engine/ort.h"
#include "engine/tensor.h"

namespace le {

class DeviceMemory {
 public:
  // `memory` is the device's. Throws LE_ENGINE where it gives none.
  DeviceMemory(const Ort &ort, OrtEnv &env, const OrtEpDevice &device, const OrtMemoryInfo &memory,
               OrtSession &session, const Signature &signature);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory &) = delete;
  DeviceMemory &operator=(const DeviceMemory &) = delete;

  // One call: what the host has goes there, the session runs, the outputs come back. Callers wait
  // for each other. Throws LE_ENGINE.
  void run(const std::vector<const OrtValue *> &inputs, const std::vector<OrtValue *> &outputs);

 private:
  OrtValue *allocate(const OrtMemoryInfo &memory, const TensorSpec &spec);

  const Ort &ort_;
  OrtEnv &env_;
  OrtSession &session_;
  OrtAllocator *allocator_ = nullptr;  // of the environment
  std::mutex lock_;
  std::vector<void *> blocks_;
  std::vector<OrtHandle<OrtValue>> owners_;
  std::vector<OrtValue *> inputs_;
  std::vector<const OrtValue *> outputs_;
  OrtHandle<OrtIoBinding> binding_;
};

}  // namespace le
