// What NVIDIA's driver says of this machine, asked of its own libraries; no CUDA header is needed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

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

// A stream, and memory that goes with it. The primary context of the GPU is made the present one of
// the calling thread by each of these. All throw LE_ENGINE.
class Stream {
 public:
  explicit Stream(bool highest);
  ~Stream();
  Stream(const Stream &) = delete;
  Stream &operator=(const Stream &) = delete;

  void *get() const { return stream_; }
  void *allocate(uint64_t bytes);
  void copy_in(void *to, const void *from, uint64_t bytes) const;
  void copy_out(void *to, const void *from, uint64_t bytes) const;
  // Until all of it is done; `what` is for messages.
  void wait(const char *what) const;

 private:
  struct Calls;
  std::unique_ptr<const Calls> calls_;
  void *context_ = nullptr, *stream_ = nullptr;
  std::vector<uint64_t> blocks_;
};

// A stream of that GPU in its primary context: of its highest priority, or of its lowest. It lives
// as long as the process. Throws LE_ENGINE.
void *create_stream(bool highest);

}  // namespace le
