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

// The oldest version of the table that has every slot below.
constexpr uint32_t kOrtApiVersion = 8;

// X(slot, name, result, parameters)
#define LE_ORT_SLOTS(X)                                                                         \
  X(2, error_message, const char *, (const OrtStatus *))                                        \
  X(3, create_env, OrtStatus *, (int severity, const char *name, OrtEnv **))                    \
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
    (const OrtMemoryInfo *, void *, size_t, const int64_t *, size_t, int type, OrtValue **))    \
  X(55, tensor_info, OrtStatus *, (const OrtTypeInfo *, const OrtTensorInfo **))                \
  X(60, element_type, OrtStatus *, (const OrtTensorInfo *, int *))                              \
  X(61, dimension_count, OrtStatus *, (const OrtTensorInfo *, size_t *))                        \
  X(62, dimensions, OrtStatus *, (const OrtTensorInfo *, int64_t *, size_t))                    \
  X(69, create_cpu_memory_info, OrtStatus *, (int allocator, int memory, OrtMemoryInfo **))     \
  X(76, allocator_free, OrtStatus *, (OrtAllocator *, void *))                                  \
  X(78, default_allocator, OrtStatus *, (OrtAllocator **))                                      \
  X(92, release_env, void, (OrtEnv *))                                                          \
  X(93, release_status, void, (OrtStatus *))                                                    \
  X(94, release_memory_info, void, (OrtMemoryInfo *))                                           \
  X(95, release_session, void, (OrtSession *))                                                  \
  X(96, release_value, void, (OrtValue *))                                                      \
  X(98, release_type_info, void, (OrtTypeInfo *))                                               \
  X(100, release_session_options, void, (OrtSessionOptions *))                                  \
  X(130, add_session_config_entry, OrtStatus *,                                                 \
    (OrtSessionOptions *, const char *key, const char *value))

// Owns an object of ONNX Runtime.
template <typename T>
using OrtHandle = std::unique_ptr<T, void (*)(T *)>;

class Ort {
 public:
  // Reads the table of a loaded library. Throws LE_ENGINE, or LE_INCOMPATIBLE where the library is
  // not of the version the manifest names.
  Ort(void *library, const std::string &expected_version);

  // Throws LE_ENGINE with `what` and ONNX Runtime's own words where the status is one.
  void check(OrtStatus *status, const char *what) const;

#define LE_ORT_MEMBER(slot, name, result, parameters) result(*name) parameters;
  LE_ORT_SLOTS(LE_ORT_MEMBER)
#undef LE_ORT_MEMBER
};

}  // namespace le
