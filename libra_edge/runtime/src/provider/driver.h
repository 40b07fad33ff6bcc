// What NVIDIA's driver says of this machine, asked of its own libraries; no CUDA header is needed.
#pragma once

#include <cstdint>
#include <string>

#include "release/manifest.h"

namespace le {

struct Gpu {
  std::string name;
  std::string driver;  // its version; empty where only libcuda.so.1 is there
  int cuda;            // the newest CUDA that the driver serves: 13020 is 13.2
  int major, minor;    // compute capability
  uint64_t memory_bytes;
};

// The one GPU that this process sees, where it is what the engines need. Throws LE_NO_DRIVER,
// LE_DRIVER_TOO_OLD, LE_NO_DEVICE, LE_SEVERAL_DEVICES, LE_WRONG_DEVICE or LE_DEVICE_TOO_SMALL.
Gpu require_gpu(const DeviceNeeds &needs);

// A stream of that GPU in its primary context: of its highest priority, or of its lowest. It lives
// as long as the process. Throws LE_ENGINE.
void *create_stream(bool highest);

}  // namespace le
