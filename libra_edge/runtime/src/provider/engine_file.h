// A compiled engine inside its ONNX file, looked at before anybody deserialises it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "release/manifest.h"

namespace le {

// The first bytes of an engine: what a provider judges it by.
constexpr size_t kEngineHeaderBytes = 64;

// Those of the engine in the EPContext node of an ONNX file, which must be the engine that the
// manifest describes: whole, of its version, for its GPU. Throws LE_ENGINE_MISMATCH. `member` is
// for messages.
std::vector<uint8_t> checked_engine_header(const char *member, const std::vector<uint8_t> &file,
                                           const CompiledFacts &facts);

}  // namespace le
