// Providers in ONNX Runtime: registered, and the one device that each has on this machine.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/ort.h"
#include "provider/files.h"
#include "release/release.h"
#include "release/rules.h"

namespace le {

// Where a session runs.
struct Placement {
  const OrtEpDevice *device = nullptr;  // nullptr: ONNX Runtime's own code for the CPU
  std::vector<std::pair<std::string, std::string>> options;
  // What the provider may still load while it compiles; not needed once the session is there.
  std::shared_ptr<LinkedFiles> files;
};

// Loads the provider's files, registers it, and finds its device. What is registered stays until
// the process ends. Throws LE_NO_PROVIDER, LE_NO_DEVICE, LE_SEVERAL_DEVICES, LE_IO, or
// LE_INCOMPATIBLE where the process already runs the provider from other files.
Placement register_provider(const Ort &ort, OrtEnv *env, const ProviderRule &provider,
                            const Release &release);

// Throws LE_ENGINE_REFUSED where the provider says that it cannot run an engine with this header.
void require_compatible(const Ort &ort, const OrtEpDevice *device, const ProviderRule &provider,
                        const char *member, const std::vector<uint8_t> &header);

// What the provider is told for one engine, from the fixed table; `cache`: a folder that it may
// write to, empty for none.
std::vector<std::pair<std::string, std::string>> provider_options(const ProviderRule &provider,
                                                                  OptionFor engine,
                                                                  uint32_t threads,
                                                                  const std::string &cache);

}  // namespace le
