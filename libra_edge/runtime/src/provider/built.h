// Engines that were built on this machine, and the mark that says so.
#pragma once

#include <string>
#include <vector>

#include "release/manifest.h"
#include "release/memory_file.h"
#include "release/rules.h"

namespace le {

// Files of a folder of engines: those that ONNX Runtime loads, or TensorRT's own and the library
// that drives it.
constexpr const char *kBuiltPlanner = "planner.onnx", *kBuiltRefiner = "refiner.onnx";
constexpr const char *kPlannerEngine = "planner.engine", *kRefinerEngine = "refiner.engine";
constexpr const char *kBuiltLibrary = "libra_trt.so";
constexpr const char *kTensorRtProvider = "TensorrtExecutionProvider";

// Whether the machine's own TensorRT runs what is built for this provider, without ONNX Runtime.
bool is_direct(const ProviderRule &provider);

// What a release leaves to this machine to build: the provider, whose files it holds. Throws
// LE_INVALID_ARGUMENT where it leaves nothing, or LE_NO_PROVIDER.
const ProviderRule &provision_provider(const Manifest &manifest);

// What engines that are built here depend on besides the release: the GPU and its driver, or the
// processor. Throws as require_gpu.
std::string device_text(const ProviderRule &provider, const Manifest &manifest);

struct BuiltEngines {
  std::vector<uint8_t> planner, refiner;
  MemoryFile library;  // that drives TensorRT, where it does
  Digest library_sha256;
};

// The engines in a folder whose mark is for this release, provider and machine: the very bytes that
// it names. Unless `unproven` is allowed, their golden vectors must have come out right here.
// Throws LE_INVALID_ARGUMENT, LE_IO, LE_INTEGRITY, LE_MALFORMED, LE_WRONG_DEVICE or LE_UNPROVEN.
BuiltEngines read_built(const char *folder, const Manifest &manifest, bool unproven);

// Marks what was written into the folder, as not proven yet. Throws LE_IO.
void write_mark(const char *folder, const Manifest &manifest);

}  // namespace le
