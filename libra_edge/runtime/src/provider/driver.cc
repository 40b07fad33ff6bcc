#include "provider/driver.h"

#include <dlfcn.h>

#include <cstdio>
#include <string>
#include <vector>

#include "error.h"

namespace le {
namespace {

constexpr const char *kCuda = "libcuda.so.1";
constexpr const char *kManagement = "libnvidia-ml.so.1";

// Values of CUDA's enumerations.
constexpr int kNoDevice = 100, kDriverTooOld = 35, kDriverMismatch = 803;
constexpr int kMajor = 75, kMinor = 76;
constexpr unsigned kNonBlocking = 1;
constexpr unsigned kManagementVersionBytes = 80;

template <typename Function>
Function symbol(void *library, const char *file, const char *name) {
  const auto found = reinterpret_cast<Function>(dlsym(library, name));
  if (found == nullptr) fail(LE_NO_DRIVER, "NVIDIA's %s has no %s.", file, name);
  return found;
}

void *open_cuda() {
  void *library = dlopen(kCuda, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    fail(LE_NO_DRIVER, "This machine has no NVIDIA driver: %s cannot be loaded (%s).", kCuda,
         dlerror());
  }
  return library;
}

class Cuda {
 public:
  Cuda() : library_(open_cuda()) {
    const int code = get<int (*)(unsigned)>("cuInit")(0);
    if (code == kNoDevice) fail(LE_NO_DEVICE, "NVIDIA's driver sees no GPU on this machine.");
    if (code == kDriverTooOld || code == kDriverMismatch) {
      fail(LE_DRIVER_TOO_OLD, "NVIDIA's driver is older than its library %s (code %d).", kCuda,
           code);
    }
    if (code != 0) fail(LE_NO_DRIVER, "NVIDIA's driver does not start: code %d.", code);
  }

  template <typename Function>
  Function get(const char *name) const {
    return symbol<Function>(library_, kCuda, name);
  }

  int number(const char *name) const {
    int value = 0;
    if (get<int (*)(int *)>(name)(&value) != 0) fail(LE_NO_DRIVER, "%s fails.", name);
    return value;
  }

 private:
  void *library_;
};

// The version that people know a driver by, as in 580.65; the management library tells it.
std::string driver_version() {
  void *library = dlopen(kManagement, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return {};
  using Plain = int (*)();
  using Version = int (*)(char *, unsigned);
  char text[kManagementVersionBytes] = "";
  if (symbol<Plain>(library, kManagement, "nvmlInit_v2")() != 0) return {};
  const int code = symbol<Version>(library, kManagement, "nvmlSystemGetDriverVersion")(
      text, kManagementVersionBytes);
  symbol<Plain>(library, kManagement, "nvmlShutdown")();
  return code == 0 ? text : "";
}

Gpu only_gpu(const Cuda &cuda) {
  const int count = cuda.number("cuDeviceGetCount");
  if (count == 0) fail(LE_NO_DEVICE, "NVIDIA's driver sees no GPU on this machine.");
  if (count > 1) {
    fail(LE_SEVERAL_DEVICES,
         "This machine has %d GPUs, and nobody said which one: set CUDA_VISIBLE_DEVICES to the "
         "number of one.",
         count);
  }
  int device = 0, major = 0, minor = 0;
  size_t memory = 0;
  char name[256] = "";
  const auto attribute = cuda.get<int (*)(int *, int, int)>("cuDeviceGetAttribute");
  int code = cuda.get<int (*)(int *, int)>("cuDeviceGet")(&device, 0);
  code |= cuda.get<int (*)(char *, int, int)>("cuDeviceGetName")(name, sizeof name - 1, device);
  code |= cuda.get<int (*)(size_t *, int)>("cuDeviceTotalMem_v2")(&memory, device);
  code |= attribute(&major, kMajor, device) | attribute(&minor, kMinor, device);
  if (code != 0) fail(LE_NO_DEVICE, "NVIDIA's driver does not answer for its GPU.");
  return {name, driver_version(), cuda.number("cuDriverGetVersion"), major, minor, memory};
}

// Whether a version in dotted numbers is at least another one.
bool at_least(const std::string &found, const std::string &wanted) {
  int f[3] = {}, w[3] = {};
  std::sscanf(found.c_str(), "%d.%d.%d", &f[0], &f[1], &f[2]);
  std::sscanf(wanted.c_str(), "%d.%d.%d", &w[0], &w[1], &w[2]);
  return std::vector<int>(f, f + 3) >= std::vector<int>(w, w + 3);
}

std::string cuda_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

Gpu require_gpu(const DeviceNeeds &needs) {
  const Cuda cuda;
  const std::string driver = driver_version(),
                    served = cuda_text(cuda.number("cuDriverGetVersion"));
  if (!driver.empty() && !needs.driver.empty() && !at_least(driver, needs.driver)) {
    fail(LE_DRIVER_TOO_OLD, "The engines need NVIDIA driver %s or newer; this machine has %s.",
         needs.driver.c_str(), driver.c_str());
  }
  if (!needs.cuda.empty() && !at_least(served, needs.cuda)) {
    fail(LE_DRIVER_TOO_OLD,
         "The engines need a driver that serves CUDA %s; this machine's serves %s at most.",
         needs.cuda.c_str(), served.c_str());
  }
  const Gpu gpu = only_gpu(cuda);
  const std::string capability = std::to_string(gpu.major) + "." + std::to_string(gpu.minor);
  if (!needs.compute_capability.empty() && needs.compute_capability != capability) {
    fail(LE_WRONG_DEVICE,
         "The engines are for GPUs of compute capability %s; this machine's %s has %s.",
         needs.compute_capability.c_str(), gpu.name.c_str(), capability.c_str());
  }
  if (gpu.memory_bytes < needs.memory_bytes) {
    fail(LE_DEVICE_TOO_SMALL, "The engines need %.1f GiB of memory; the %s has %.1f GiB.",
         static_cast<double>(needs.memory_bytes) / (1 << 30), gpu.name.c_str(),
         static_cast<double>(gpu.memory_bytes) / (1 << 30));
  }
  return gpu;
}

void *create_stream(bool highest) {
  const Cuda cuda;
  int device = 0, least = 0, greatest = 0;
  void *context = nullptr, *stream = nullptr;
  int code = cuda.get<int (*)(int *, int)>("cuDeviceGet")(&device, 0);
  code |= cuda.get<int (*)(void **, int)>("cuDevicePrimaryCtxRetain")(&context, device);
  code |= cuda.get<int (*)(void *)>("cuCtxSetCurrent")(context);
  code |= cuda.get<int (*)(int *, int *)>("cuCtxGetStreamPriorityRange")(&least, &greatest);
  const auto create = cuda.get<int (*)(void **, unsigned, int)>("cuStreamCreateWithPriority");
  code |= create(&stream, kNonBlocking, highest ? greatest : least);
  if (code != 0) fail(LE_ENGINE, "The GPU gives no stream of its own to an engine.");
  return stream;
}

// Functions of the driver, and what may go wrong in each call of them.
struct Stream::Calls {
  explicit Calls(const Cuda &cuda)
      : set_context(cuda.get<int (*)(void *)>("cuCtxSetCurrent")),
        allocate(cuda.get<int (*)(uint64_t *, size_t)>("cuMemAlloc_v2")),
        free(cuda.get<int (*)(uint64_t)>("cuMemFree_v2")),
        in(cuda.get<int (*)(uint64_t, const void *, size_t, void *)>("cuMemcpyHtoDAsync_v2")),
        out(cuda.get<int (*)(void *, uint64_t, size_t, void *)>("cuMemcpyDtoHAsync_v2")),
        wait(cuda.get<int (*)(void *)>("cuStreamSynchronize")) {}

  int (*set_context)(void *);
  int (*allocate)(uint64_t *, size_t);
  int (*free)(uint64_t);
  int (*in)(uint64_t, const void *, size_t, void *);
  int (*out)(void *, uint64_t, size_t, void *);
  int (*wait)(void *);
};

Stream::Stream(bool highest) : stream_(create_stream(highest)) {
  const Cuda cuda;
  calls_ = std::make_unique<Calls>(cuda);
  int device = 0;
  int code = cuda.get<int (*)(int *, int)>("cuDeviceGet")(&device, 0);
  code |= cuda.get<int (*)(void **, int)>("cuDevicePrimaryCtxRetain")(&context_, device);
  if (code != 0) fail(LE_ENGINE, "The GPU gives no context.");
}

Stream::~Stream() {
  calls_->set_context(context_);
  for (const uint64_t block : blocks_) calls_->free(block);
}

void *Stream::allocate(uint64_t bytes) {
  uint64_t block = 0;
  if (calls_->set_context(context_) != 0 || calls_->allocate(&block, bytes) != 0) {
    fail(LE_ENGINE, "The GPU has no memory for a tensor of %llu bytes.",
         static_cast<unsigned long long>(bytes));
  }
  blocks_.push_back(block);
  return reinterpret_cast<void *>(block);
}

void Stream::copy_in(void *to, const void *from, uint64_t bytes) const {
  if (calls_->set_context(context_) != 0 ||
      calls_->in(reinterpret_cast<uint64_t>(to), from, bytes, stream_) != 0) {
    fail(LE_ENGINE, "Nothing can be copied to the GPU.");
  }
}

void Stream::copy_out(void *to, const void *from, uint64_t bytes) const {
  if (calls_->out(to, reinterpret_cast<uint64_t>(from), bytes, stream_) != 0) {
    fail(LE_ENGINE, "Nothing can be copied from the GPU.");
  }
}

void Stream::wait(const char *what) const {
  const int code = calls_->wait(stream_);
  if (code != 0) fail(LE_ENGINE, "%s: the GPU stopped with code %d.", what, code);
}

}  // namespace le
