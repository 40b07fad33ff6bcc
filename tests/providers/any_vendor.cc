// A plug-in provider around another one, which it tells that every processor is Intel's.
//
// ONNX Runtime's table of functions is memory that cannot be written to; the kernel writes all the
// same where a process asks for its own memory as a file.
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace {

using Slot = void (*)();
struct ApiBase {
  const Slot *(*table)(uint32_t version);
  const char *(*version)();
};
using Create = void *(*)(const char *, const ApiBase *, const void *, void **, size_t, size_t *);

constexpr uint32_t kVersion = 24;
constexpr int kVendorId = 308, kVendorName = 309;

uint32_t vendor_id(const void *) {
  return 0x8086;
}

const char *vendor_name(const void *) {
  return "GenuineIntel";
}

void replace(const Slot *slot, Slot by) {
  const int memory = open("/proc/self/mem", O_RDWR);
  const auto at = static_cast<off_t>(reinterpret_cast<uintptr_t>(slot));
  if (memory < 0 || pwrite(memory, &by, sizeof by, at) != sizeof by) abort();
  close(memory);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void *CreateEpFactories(
    const char *name, const ApiBase *base, const void *logger, void **factories, size_t most,
    size_t *count) {
  const Slot *table = base->table(kVersion);
  replace(table + kVendorId, reinterpret_cast<Slot>(vendor_id));
  replace(table + kVendorName, reinterpret_cast<Slot>(vendor_name));
  void *real = dlopen(getenv("LIBRA_EDGE_TEST_PLUGIN"), RTLD_NOW);
  if (real == nullptr) abort();
  return reinterpret_cast<Create>(dlsym(real, "CreateEpFactories"))(name, base, logger, factories,
                                                                    most, count);
}

extern "C" __attribute__((visibility("default"))) void *ReleaseEpFactory(void *) {
  return nullptr;
}
