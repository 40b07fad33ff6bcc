// The part of ONNX Runtime's C interface that a plug-in provider uses: slots of its tables, and the
// tables of functions that a provider gives back, in the order of version 24.
#pragma once

#include <cstddef>
#include <cstdint>

struct OrtStatus;
struct OrtEnv;
struct OrtSession;
struct OrtSessionOptions;
struct OrtMemoryInfo;
struct OrtMemoryDevice;
struct OrtValue;
struct OrtValueInfo;
struct OrtTypeInfo;
struct OrtTensorInfo;
struct OrtAllocator;
struct OrtRunOptions;
struct OrtEpDevice;
struct OrtHardwareDevice;
struct OrtKeyValuePairs;
struct OrtGraph;
struct OrtNode;
struct OrtOpAttr;
struct OrtKernelContext;
struct OrtLogger;
struct OrtSyncStream;

namespace fake {

constexpr uint32_t kApiVersion = 24;

using Slot = void (*)();
struct ApiBase {
  const Slot *(*table)(uint32_t version);
  const char *(*version)();
};

// X(slot, name, result, parameters)
#define FAKE_SLOTS(X)                                                                           \
  X(0, create_status, OrtStatus *, (int, const char *))                                         \
  X(3, create_env, OrtStatus *, (int, const char *, OrtEnv **))                                 \
  X(8, create_session_from_array, OrtStatus *,                                                  \
    (const OrtEnv *, const void *, size_t, const OrtSessionOptions *, OrtSession **))           \
  X(9, run, OrtStatus *,                                                                        \
    (OrtSession *, const OrtRunOptions *, const char *const *, const OrtValue *const *, size_t, \
     const char *const *, size_t, OrtValue **))                                                 \
  X(10, create_session_options, OrtStatus *, (OrtSessionOptions **))                            \
  X(24, set_intra_op_threads, OrtStatus *, (OrtSessionOptions *, int))                          \
  X(30, input_count, OrtStatus *, (const OrtSession *, size_t *))                               \
  X(31, output_count, OrtStatus *, (const OrtSession *, size_t *))                              \
  X(33, input_type, OrtStatus *, (const OrtSession *, size_t, OrtTypeInfo **))                  \
  X(34, output_type, OrtStatus *, (const OrtSession *, size_t, OrtTypeInfo **))                 \
  X(36, input_name, OrtStatus *, (const OrtSession *, size_t, OrtAllocator *, char **))         \
  X(37, output_name, OrtStatus *, (const OrtSession *, size_t, OrtAllocator *, char **))        \
  X(49, create_tensor, OrtStatus *,                                                             \
    (const OrtMemoryInfo *, void *, size_t, const int64_t *, size_t, int, OrtValue **))         \
  X(51, tensor_data, OrtStatus *, (OrtValue *, void **))                                        \
  X(55, tensor_info, OrtStatus *, (const OrtTypeInfo *, const OrtTensorInfo **))                \
  X(60, element_type, OrtStatus *, (const OrtTensorInfo *, int *))                              \
  X(61, dimension_count, OrtStatus *, (const OrtTensorInfo *, size_t *))                        \
  X(62, dimensions, OrtStatus *, (const OrtTensorInfo *, int64_t *, size_t))                    \
  X(65, value_info, OrtStatus *, (const OrtValue *, OrtTensorInfo **))                          \
  X(69, create_cpu_memory_info, OrtStatus *, (int, int, OrtMemoryInfo **))                      \
  X(78, default_allocator, OrtStatus *, (OrtAllocator **))                                      \
  X(90, context_input, OrtStatus *, (const OrtKernelContext *, size_t, const OrtValue **))      \
  X(91, context_output, OrtStatus *,                                                            \
    (OrtKernelContext *, size_t, const int64_t *, size_t, OrtValue **))                         \
  X(93, release_status, void, (OrtStatus *))                                                    \
  X(96, release_value, void, (OrtValue *))                                                      \
  X(99, release_tensor_info, void, (OrtTensorInfo *))                                           \
  X(272, read_attribute, OrtStatus *, (const OrtOpAttr *, int type, void *, size_t, size_t *))  \
  X(289, value_name, OrtStatus *, (const OrtValueInfo *, const char **))                        \
  X(295, create_key_values, void, (OrtKeyValuePairs **))                                        \
  X(296, add_key_value, void, (OrtKeyValuePairs *, const char *, const char *))                 \
  X(297, key_value, const char *, (const OrtKeyValuePairs *, const char *))                     \
  X(300, release_key_values, void, (OrtKeyValuePairs *))                                        \
  X(317, provider_api, const struct EpApi *, ())                                                \
  X(318, tensor_bytes, OrtStatus *, (const OrtValue *, size_t *))                               \
  X(320, create_memory_info, OrtStatus *,                                                       \
    (const char *, int device, uint32_t vendor, int32_t id, int memory, size_t align, int,      \
     OrtMemoryInfo **))                                                                         \
  X(344, node_count, OrtStatus *, (const OrtGraph *, size_t *))                                 \
  X(345, nodes, OrtStatus *, (const OrtGraph *, const OrtNode **, size_t))                      \
  X(350, node_type, OrtStatus *, (const OrtNode *, const char **))                              \
  X(353, node_input_count, OrtStatus *, (const OrtNode *, size_t *))                            \
  X(354, node_inputs, OrtStatus *, (const OrtNode *, const OrtValueInfo **, size_t))            \
  X(355, node_output_count, OrtStatus *, (const OrtNode *, size_t *))                           \
  X(356, node_outputs, OrtStatus *, (const OrtNode *, const OrtValueInfo **, size_t))           \
  X(361, node_attribute, OrtStatus *, (const OrtNode *, const char *, const OrtOpAttr **))

struct Api {
#define FAKE_MEMBER(slot, name, result, parameters) result(*name) parameters;
  FAKE_SLOTS(FAKE_MEMBER)
#undef FAKE_MEMBER
  explicit Api(const ApiBase *base) {
    const Slot *table = base->table(kApiVersion);
#define FAKE_LOAD(slot, name, result, parameters) \
  name = reinterpret_cast<result(*) parameters>(table[slot]);
    FAKE_SLOTS(FAKE_LOAD)
#undef FAKE_LOAD
  }
};

// What ONNX Runtime offers to providers.
struct EpApi {
  OrtStatus *(*create_device)(void *factory, const OrtHardwareDevice *, const OrtKeyValuePairs *,
                              const OrtKeyValuePairs *, OrtEpDevice **);
  void (*release_device)(OrtEpDevice *);
  OrtStatus *(*add_nodes_to_fuse)(void *support, const OrtNode *const *, size_t, const void *);
  OrtStatus *(*add_single_node)(void *support, const OrtNode *);
  const char *(*node_name)(const void *);
  OrtStatus *(*add_allocator_info)(OrtEpDevice *, const OrtMemoryInfo *);
  const OrtMemoryDevice *(*memory_device)(const OrtMemoryInfo *);
  const OrtMemoryDevice *(*value_memory_device)(const OrtValue *);
  bool (*same_memory_device)(const OrtMemoryDevice *, const OrtMemoryDevice *);
  int (*device_type)(const OrtMemoryDevice *);
  int (*memory_type)(const OrtMemoryDevice *);
  uint32_t (*memory_vendor)(const OrtMemoryDevice *);
  uint32_t (*memory_id)(const OrtMemoryDevice *);
  void *streams[3];
  OrtStatus *(*create_hardware)(int type, uint32_t vendor, uint32_t device, const char *name,
                                const OrtKeyValuePairs *, OrtHardwareDevice **);
  void (*release_hardware)(OrtHardwareDevice *);
};

}  // namespace fake
