/* libcuda.so.1 and libnvidia-ml.so.1 for tests, in one file: a driver and a GPU as the environment
 * says. FAKE_GPU_INIT (0) is what cuInit answers; FAKE_GPU_COUNT (1), FAKE_GPU_CC (8.9),
 * FAKE_GPU_MEMORY_GIB (24), FAKE_GPU_CUDA (13000), FAKE_GPU_DRIVER (580.65.06). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN __attribute__((visibility("default")))

static const char *setting(const char *name, const char *otherwise) {
  const char *value = getenv(name);
  return value != NULL ? value : otherwise;
}

SHOWN int cuInit(unsigned flags) {
  (void)flags;
  return atoi(setting("FAKE_GPU_INIT", "0"));
}

SHOWN int cuDriverGetVersion(int *version) {
  *version = atoi(setting("FAKE_GPU_CUDA", "13000"));
  return 0;
}

SHOWN int cuDeviceGetCount(int *count) {
  *count = atoi(setting("FAKE_GPU_COUNT", "1"));
  return 0;
}

SHOWN int cuDeviceGet(int *device, int number) {
  *device = number;
  return 0;
}

SHOWN int cuDeviceGetName(char *name, int size, int device) {
  (void)device;
  snprintf(name, (size_t)size, "Fake RTX");
  return 0;
}

SHOWN int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  (void)device;
  *bytes = (size_t)(atof(setting("FAKE_GPU_MEMORY_GIB", "24")) * 1073741824.0);
  return 0;
}

SHOWN int cuDeviceGetAttribute(int *value, int attribute, int device) {
  int major = 0, minor = 0;
  (void)device;
  sscanf(setting("FAKE_GPU_CC", "8.9"), "%d.%d", &major, &minor);
  *value = attribute == 75 ? major : attribute == 76 ? minor : 0;
  return 0;
}

SHOWN int cuDevicePrimaryCtxRetain(void **context, int device) {
  (void)device;
  *context = (void *)1;
  return 0;
}

SHOWN int cuCtxSetCurrent(void *context) {
  return context == (void *)1 ? 0 : 201;
}

SHOWN int cuCtxGetStreamPriorityRange(int *least, int *greatest) {
  *least = 0;
  *greatest = -5;
  return 0;
}

SHOWN int cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
  const char *log = getenv("FAKE_GPU_STREAMS");
  static int streams = 0;
  *stream = (void *)(size_t)(0x1000 + 16 * ++streams);
  if (log != NULL) {
    FILE *file = fopen(log, "a");
    if (file == NULL) return 1;
    fprintf(file, "%u %d %p\n", flags, priority, *stream);
    fclose(file);
  }
  return 0;
}

SHOWN int nvmlInit_v2(void) {
  return 0;
}

SHOWN int nvmlShutdown(void) {
  return 0;
}

SHOWN int nvmlSystemGetDriverVersion(char *version, unsigned size) {
  snprintf(version, size, "%s", setting("FAKE_GPU_DRIVER", "580.65.06"));
  return 0;
}

/* Device memory is the process's own. */
SHOWN int cuMemAlloc_v2(unsigned long long *address, size_t bytes) {
  *address = (unsigned long long)(size_t)malloc(bytes);
  return *address != 0 ? 0 : 2;
}

SHOWN int cuMemFree_v2(unsigned long long address) {
  free((void *)(size_t)address);
  return 0;
}

SHOWN int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t bytes,
                               void *stream) {
  (void)stream;
  memcpy((void *)(size_t)to, from, bytes);
  return 0;
}

SHOWN int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t bytes, void *stream) {
  (void)stream;
  memcpy(to, (const void *)(size_t)from, bytes);
  return 0;
}

SHOWN int cuStreamSynchronize(void *stream) {
  (void)stream;
  return 0;
}
