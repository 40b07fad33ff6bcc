/*
 * A C function table over TensorRT's C++ interface.
 *
 * TensorRT's classes change from one major version to the next, and no package index has a library
 * of it for Jetson: so this table is what liblibra_edge.so knows, and libra_trt.cc, which fills it
 * in, is compiled against the TensorRT that a robot has (`libra-edge provision`).
 */
#ifndef LIBRA_TRT_H
#define LIBRA_TRT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LIBRA_TRT_VERSION 1u

/* Element types of tensors. */
#define LIBRA_TRT_FLOAT32 1
#define LIBRA_TRT_UINT8 2
#define LIBRA_TRT_INT32 6
#define LIBRA_TRT_INT64 7
#define LIBRA_TRT_OTHER 0

#define LIBRA_TRT_MOST_DIMENSIONS 8

typedef struct libra_trt_tensor {
  const char *name; /* belongs to the engine */
  int32_t is_input;
  int32_t type; /* LIBRA_TRT_... */
  int32_t rank;
  int64_t shape[LIBRA_TRT_MOST_DIMENSIONS];
} libra_trt_tensor;

/* Functions that can fail return 0, or another number and a sentence in `error`. */
typedef struct libra_trt {
  uint32_t version;  /* LIBRA_TRT_VERSION */
  uint32_t tensorrt; /* of the library: 1003 is 10.3 */
  /* Deserialises an engine and makes a context for it, on the present CUDA context. */
  int32_t (*open)(const void *content, uint64_t bytes, void **engine, char *error,
                  uint32_t error_bytes);
  int32_t (*tensor_count)(const void *engine);
  int32_t (*tensor)(const void *engine, int32_t number, libra_trt_tensor *tensor);
  /* Device memory that a tensor lies in from now on. */
  int32_t (*bind)(void *engine, const char *name, void *address);
  /* Enqueues one call on a CUDA stream. */
  int32_t (*enqueue)(void *engine, void *stream, char *error, uint32_t error_bytes);
  void (*close)(void *engine);
} libra_trt;

/* The table; NULL for a version that this library does not have. */
const libra_trt *libra_trt_table(uint32_t version);

#ifdef __cplusplus
}
#endif

#endif /* LIBRA_TRT_H */
