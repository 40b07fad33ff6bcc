// A stand-in for tests: of TensorRT 10's C++ interface, what libra_trt.cc uses, written for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "NvInferVersion.h"

struct CUstream_st;
using cudaStream_t = CUstream_st *;

namespace nvinfer1 {

enum class DataType : int32_t {
  kFLOAT = 0,
  kHALF = 1,
  kINT8 = 2,
  kINT32 = 3,
  kBOOL = 4,
  kUINT8 = 5,
  kFP8 = 6,
  kBF16 = 7,
  kINT64 = 8
};
enum class TensorIOMode : int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };

struct Dims {
  int32_t nbDims;
  int64_t d[8];
};

class ILogger {
 public:
  enum class Severity : int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3 };
  virtual void log(Severity severity, const char *text) noexcept = 0;
  virtual ~ILogger() = default;
};

class IExecutionContext {
 public:
  virtual ~IExecutionContext() = default;
  virtual bool setTensorAddress(const char *name, void *data) noexcept = 0;
  virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
};

class ICudaEngine {
 public:
  virtual ~ICudaEngine() = default;
  virtual int32_t getNbIOTensors() const noexcept = 0;
  virtual const char *getIOTensorName(int32_t index) const noexcept = 0;
  virtual Dims getTensorShape(const char *name) const noexcept = 0;
  virtual DataType getTensorDataType(const char *name) const noexcept = 0;
  virtual TensorIOMode getTensorIOMode(const char *name) const noexcept = 0;
  virtual IExecutionContext *createExecutionContext() noexcept = 0;
};

class IRuntime {
 public:
  virtual ~IRuntime() = default;
  virtual ICudaEngine *deserializeCudaEngine(const void *content, size_t bytes) noexcept = 0;
};

IRuntime *createInferRuntime(ILogger &logger) noexcept;

}  // namespace nvinfer1
