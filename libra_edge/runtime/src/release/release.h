// A release directory, verified as a whole before anything in it is used.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "release/manifest.h"

namespace le {

struct Release {
  Manifest manifest;
  Digest manifest_sha256;
  std::vector<uint8_t> planner, refiner;  // the very bytes that were hashed
  std::string onnxruntime_path;
};

// Throws LE_INVALID_ARGUMENT, LE_IO, LE_INTEGRITY, or what parse_manifest throws.
Release read_release(const char *directory);

}  // namespace le
