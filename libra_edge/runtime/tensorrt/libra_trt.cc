// TensorRT 8.6 to 10 behind libra_trt.h. Source: NvInferRuntime.h of those versions.
#include "libra_trt.h"

#include <NvInfer.h>

#include <cstdio>
#include <memory>
#include <string>

namespace {

// The last error that TensorRT told; it tells them to a logger, and returns nothing.
class Log : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char *text) noexcept override {
    if (severity > Severity::kERROR) return;
    std::snprintf(last_, sizeof last_, "%s", text);
  }
  const char *last() const { return last_[0] == '\0' ? "TensorRT does not say why" : last_; }
  void clear() { last_[0] = '\0'; }

 private:
  char last_[400] = "";
};

struct Engine {
  Log log;
  std::unique_ptr<nvinfer1::IRuntime> runtime;
  std::unique_ptr<nvinfer1::ICudaEngine> engine;
  std::unique_ptr<nvinfer1::IExecutionContext> context;
};

int32_t fail(const Log &log, char *error, uint32_t bytes) {
  if (bytes > 0) std::snprintf(error, bytes, "%s", log.last());
  return 1;
}

int32_t type_of(nvinfer1::DataType type) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT:
      return LIBRA_TRT_FLOAT32;
    case nvinfer1::DataType::kINT32:
      return LIBRA_TRT_INT32;
    case nvinfer1::DataType::kUINT8:
      return LIBRA_TRT_UINT8;
#if NV_TENSORRT_MAJOR >= 10
    case nvinfer1::DataType::kINT64:
      return LIBRA_TRT_INT64;
#endif
    default:
      return LIBRA_TRT_OTHER;
  }
}

int32_t open_engine(const void *content, uint64_t bytes, void **out, char *error,
                    uint32_t error_bytes) {
  auto made = std::make_unique<Engine>();
  made->runtime.reset(nvinfer1::createInferRuntime(made->log));
  if (made->runtime == nullptr) return fail(made->log, error, error_bytes);
  made->engine.reset(made->runtime->deserializeCudaEngine(content, bytes));
  if (made->engine == nullptr) return fail(made->log, error, error_bytes);
  made->context.reset(made->engine->createExecutionContext());
  if (made->context == nullptr) return fail(made->log, error, error_bytes);
  *out = made.release();
  return 0;
}

int32_t tensor_count(const void *engine) {
  return static_cast<const Engine *>(engine)->engine->getNbIOTensors();
}

int32_t tensor(const void *of, int32_t number, libra_trt_tensor *out) {
  const nvinfer1::ICudaEngine &engine = *static_cast<const Engine *>(of)->engine;
  const char *name = engine.getIOTensorName(number);
  if (name == nullptr) return 1;
  const nvinfer1::Dims shape = engine.getTensorShape(name);
  if (shape.nbDims < 0 || shape.nbDims > LIBRA_TRT_MOST_DIMENSIONS) return 1;
  out->name = name;
  out->is_input = engine.getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT ? 1 : 0;
  out->type = type_of(engine.getTensorDataType(name));
  out->rank = shape.nbDims;
  for (int32_t i = 0; i < shape.nbDims; ++i) out->shape[i] = shape.d[i];
  return 0;
}

int32_t bind(void *engine, const char *name, void *address) {
  return static_cast<Engine *>(engine)->context->setTensorAddress(name, address) ? 0 : 1;
}

int32_t enqueue(void *of, void *stream, char *error, uint32_t error_bytes) {
  auto *engine = static_cast<Engine *>(of);
  engine->log.clear();
  if (engine->context->enqueueV3(static_cast<cudaStream_t>(stream))) return 0;
  return fail(engine->log, error, error_bytes);
}

void close_engine(void *engine) {
  delete static_cast<Engine *>(engine);
}

constexpr libra_trt kTable = {LIBRA_TRT_VERSION,
                              NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR,
                              open_engine,
                              tensor_count,
                              tensor,
                              bind,
                              enqueue,
                              close_engine};

}  // namespace

extern "C" __attribute__((visibility("default"))) const libra_trt *libra_trt_table(
    uint32_t version) {
  return version == LIBRA_TRT_VERSION ? &kTable : nullptr;
}
