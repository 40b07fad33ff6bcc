// The part of ONNX Runtime's C interface that the runtime uses.
//
// ONNX Runtime hands out one table of function pointers, to which newer versions only append: a
// slot number and a prototype are all it takes to call one. tests/runtime/test_ort_slots.py calls
// every slot named here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace le {

struct OrtStatus;
struct OrtEnv;
struct OrtSession;
struct OrtSessionOptions;
struct OrtMemoryInfo;
struct OrtValue;
struct OrtTypeInfo;
struct OrtTensorInfo;
struct OrtAllocator;
struct OrtRunOptions;
struct OrtEpDevice;
struct OrtHardwareDevice;
struct OrtIoBinding;
struct OrtKeyValuePairs;
struct OrtSyncStream;

// The oldest version of the table that has every slot below.
constexpr uint32_t kOrtApiVersion = 24;

// X(slot, name, result, parameters)
#define LE_ORT_SLOTS(X)                                                                          \
  X(2, error_message, const char *, (const OrtStatus *))                                         \
  X(3, create_env, OrtStatus *, (int severity, const char *name, OrtEnv **))                     \
  X(8, create_session_from_array, OrtStatus *,                                                   \
    (const OrtEnv *, const void *, size_t, const OrtSessionOptions *, OrtSession **))            \
  X(9, run, OrtStatus *,                                                                         \
    (OrtSession *, const OrtRunOptions *, const char *const *, const OrtValue *const *, size_t,  \
     const char *const *, size_t, OrtValue **))                                                  \
  X(10, create_session_options, OrtStatus *, (OrtSessionOptions **))                             \
  X(24, set_intra_op_threads, OrtStatus *, (OrtSessionOptions *, int))                           \
  X(30, input_count, OrtStatus *, (const OrtSession *, size_t *))                                \
  X(31, output_count, OrtStatus *, (const OrtSession *, size_t *))                               \
  X(33, input_type, OrtStatus *, (const OrtSession *, size_t, OrtTypeInfo **))                   \
  X(34, output_type, OrtStatus *, (const OrtSession *, size_t, OrtTypeInfo **))                  \
  X(36, input_name, OrtStatus *, (const OrtSession *, size_t, OrtAllocator *, char **))          \
  X(37, output_name, OrtStatus *, (const OrtSession *, size_t, OrtAllocator *, char **))         \
  X(49, create_tensor, OrtStatus *,                                                              \
    (const OrtMemoryInfo *, void *, size_t, const int64_t *, size_t, int type, OrtValue **))     \
  X(55, tensor_info, OrtStatus *, (const OrtTypeInfo *, const OrtTensorInfo **))                 \
  X(60, element_type, OrtStatus *, (const OrtTensorInfo *, int *))                               \
  X(61, dimension_count, OrtStatus *, (const OrtTensorInfo *, size_t *))                         \
  X(62, dimensions, OrtStatus *, (const OrtTensorInfo *, int64_t *, size_t))                     \
  X(69, create_cpu_memory_info, OrtStatus *, (int allocator, int memory, OrtMemoryInfo **))      \
  X(75, allocator_alloc, OrtStatus *, (OrtAllocator *, size_t, void **))                         \
  X(76, allocator_free, OrtStatus *, (OrtAllocator *, void *))                                   \
  X(78, default_allocator, OrtStatus *, (OrtAllocator **))                                       \
  X(92, release_env, void, (OrtEnv *))                                                           \
  X(93, release_status, void, (OrtStatus *))                                                     \
  X(94, release_memory_info, void, (OrtMemoryInfo *))                                            \
  X(95, release_session, void, (OrtSession *))                                                   \
  X(96, release_value, void, (OrtValue *))                                                       \
  X(98, release_type_info, void, (OrtTypeInfo *))                                                \
  X(100, release_session_options, void, (OrtSessionOptions *))                                   \
  X(130, add_session_config_entry, OrtStatus *,                                                  \
    (OrtSessionOptions *, const char *key, const char *value))                                   \
  X(133, run_with_binding, OrtStatus *,                                                          \
    (OrtSession *, const OrtRunOptions *, const OrtIoBinding *))                                 \
  X(134, create_io_binding, OrtStatus *, (OrtSession *, OrtIoBinding **))                        \
  X(135, release_io_binding, void, (OrtIoBinding *))                                             \
  X(136, bind_input, OrtStatus *, (OrtIoBinding *, const char *name, const OrtValue *))          \
  X(137, bind_output, OrtStatus *, (OrtIoBinding *, const char *name, const OrtValue *))         \
  X(301, register_library, OrtStatus *, (OrtEnv *, const char *name, const char *path))          \
  X(303, get_ep_devices, OrtStatus *, (const OrtEnv *, const OrtEpDevice *const **, size_t *))   \
  X(304, append_provider, OrtStatus *,                                                           \
    (OrtSessionOptions *, OrtEnv *, const OrtEpDevice *const *, size_t, const char *const *keys, \
     const char *const *values, size_t))                                                         \
  X(307, hardware_type, int, (const OrtHardwareDevice *))                                        \
  X(312, ep_name, const char *, (const OrtEpDevice *))                                           \
  X(316, ep_hardware, const OrtHardwareDevice *, (const OrtEpDevice *))                          \
  X(374, device_memory, const OrtMemoryInfo *, (const OrtEpDevice *, int memory))                \
  X(375, create_shared_allocator, OrtStatus *,                                                   \
    (OrtEnv *, const OrtEpDevice *, int memory, int allocator, const OrtKeyValuePairs *,         \
     OrtAllocator **))                                                                           \
  X(376, shared_allocator, OrtStatus *, (OrtEnv *, const OrtMemoryInfo *, OrtAllocator **))      \
  X(386, copy_tensors, OrtStatus *,                                                              \
    (const OrtEnv *, const OrtValue *const *from, OrtValue *const *to, OrtSyncStream *, size_t)) \
  X(388, model_compatibility, OrtStatus *,                                                       \
    (const OrtEpDevice *const *, size_t, const char *, int *verdict))

// Owns an object of ONNX Runtime.
template <typename T>
using OrtHandle = std::unique_ptr<T, void (*)(T *)>;

class Ort {
 public:
  // Reads the table of a loaded library. Throws LE_ENGINE, or LE_INCOMPATIBLE where the library is
  // not of the version the manifest names.
  Ort(void *library, const std::string &expected_version);

  // The table itself: it names the loaded library.
  const void *table() const { return table_; }

  // Throws LE_ENGINE with `what` and ONNX Runtime's own words where the status is one.
  void check(OrtStatus *status, const char *what) const;

#define LE_ORT_MEMBER(slot, name, result, parameters) result(*name) parameters;
  LE_ORT_SLOTS(LE_ORT_MEMBER)
#undef LE_ORT_MEMBER

 private:
  const void *table_;
};

}  // namespace le
