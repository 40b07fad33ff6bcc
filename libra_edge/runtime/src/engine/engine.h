// One graph in one ONNX Runtime session.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/device_memory.h"
#include "engine/ort.h"
#include "engine/tensor.h"
#include "provider/plugin.h"
#include "release/manifest.h"

namespace le {

// The tensors of one engine over memory that somebody else owns, in the order of its signature.
struct Binding {
  std::vector<OrtHandle<OrtValue>> owners;
  std::vector<const OrtValue *> inputs;
  std::vector<OrtValue *> outputs;
};

// Compiles a graph where `placement` says, and writes the engine to a file that must not be there.
// Throws LE_ENGINE.
void build_engine(const Ort &ort, OrtEnv &env, const char *name, const std::vector<uint8_t> &graph,
                  uint32_t threads, const Placement &placement, const std::string &path);

class Engine {
 public:
  // Throws LE_ENGINE where ONNX Runtime refuses the graph or its signature is not `signature`. On a
  // device the engine has been run when this returns.
  Engine(const Ort &ort, OrtEnv &env, const char *name, const std::vector<uint8_t> &graph,
         Signature signature, const SessionOptions &options, uint32_t threads,
         const Placement &placement);

  // Binds memory that must outlive the binding; each buffer has the size of its spec.
  Binding bind(const std::vector<void *> &inputs, const std::vector<void *> &outputs) const;

  // Throws LE_ENGINE.
  void run(Binding &binding) const;

 private:
  // A few calls on zeros, so that the first real one takes as long as any. Throws LE_ENGINE.
  void warm_up() const;
  void check_specs(bool input, const std::vector<TensorSpec> &specs) const;
  void check_type(const TensorSpec &spec, const OrtTypeInfo *type) const;
  OrtHandle<OrtValue> tensor(const OrtMemoryInfo *memory, const TensorSpec &spec, void *data) const;

  const Ort &ort_;
  const char *name_;
  Signature signature_;
  OrtHandle<OrtSession> session_;
  std::unique_ptr<DeviceMemory> device_memory_;  // where the device has memory of its own
  std::vector<const char *> input_names_, output_names_;
};

}  // namespace le
