// A release directory, verified as a whole before anything in it is used.
#pragma once

#include <cstdint>
#include <vector>

#include "release/manifest.h"
#include "release/memory_file.h"

namespace le {

// A library of a provider.
struct ProviderFile {
  const char *member;
  Digest sha256;
  MemoryFile content;
};

struct Release {
  Manifest manifest;
  Digest onnxruntime_sha256;
  // The very bytes that were hashed.
  std::vector<uint8_t> planner, refiner, tokenizer;
  MemoryFile onnxruntime;
  std::vector<ProviderFile> provider_files;  // in the order of the manifest
};

// `allowed`: LE_OPEN_... flags. Throws LE_INVALID_ARGUMENT, LE_IO, LE_INTEGRITY, LE_UNPROVEN,
// LE_NO_MEMORY, or what parse_manifest throws.
Release read_release(const char *directory, uint32_t allowed);

}  // namespace le
