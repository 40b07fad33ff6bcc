// libnvinfer.so for tests: an "engine" is `ptrt`, and then a plain ONNX graph, which ONNX Runtime
// (of FAKE_TRT_ORT) runs on the CPU. FAKE_TRT_FAULT = open | run makes it fail, slow_ms:N slow.
#include "NvInfer.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "ep_api.h"

using namespace nvinfer1;

namespace {

const fake::Api *ort;
OrtEnv *env;
OrtMemoryInfo *host;

bool failed(const char *what) {
  const char *fault = std::getenv("FAKE_TRT_FAULT");
  return fault != nullptr && std::strcmp(fault, what) == 0;
}

struct Tensor {
  std::string name;
  TensorIOMode mode;
  Dims shape;
  int type;
};

DataType data_type(int type) {
  return type == 1   ? DataType::kFLOAT
         : type == 2 ? DataType::kUINT8
         : type == 6 ? DataType::kINT32
         : type == 7 ? DataType::kINT64
                     : DataType::kHALF;
}

// OK where ONNX Runtime says nothing.
void require(OrtStatus *status) {
  if (status != nullptr) std::abort();
}

class Context final : public IExecutionContext {
 public:
  Context(OrtSession *session, const std::vector<Tensor> &tensors, ILogger &log)
      : session_(session), tensors_(tensors), log_(log) {}

  bool setTensorAddress(const char *name, void *data) noexcept override {
    addresses_[name] = data;
    return data != nullptr;
  }

  bool enqueueV3(cudaStream_t) noexcept override {
    if (failed("run")) {
      log_.log(ILogger::Severity::kERROR, "the device has fallen off the bus");
      return false;
    }
    if (const char *fault = std::getenv("FAKE_TRT_FAULT")) {
      if (std::strncmp(fault, "slow_ms:", 8) == 0) usleep(1000 * std::atoi(fault + 8));
    }
    std::vector<OrtValue *> values[2];
    std::vector<const char *> names[2];
    for (const Tensor &tensor : tensors_) {
      const int side = tensor.mode == TensorIOMode::kOUTPUT ? 1 : 0;
      size_t bytes = tensor.type == 2 ? 1 : tensor.type == 7 ? 8 : 4;
      for (int i = 0; i < tensor.shape.nbDims; ++i) bytes *= static_cast<size_t>(tensor.shape.d[i]);
      require(ort->create_tensor(host, addresses_[tensor.name], bytes, tensor.shape.d,
                                 static_cast<size_t>(tensor.shape.nbDims), tensor.type,
                                 &values[side].emplace_back()));
      names[side].push_back(tensor.name.c_str());
    }
    require(ort->run(session_, nullptr, names[0].data(), values[0].data(), values[0].size(),
                     names[1].data(), values[1].size(), values[1].data()));
    for (const auto &side : values) {
      for (OrtValue *value : side) ort->release_value(value);
    }
    return true;
  }

 private:
  OrtSession *session_;
  const std::vector<Tensor> &tensors_;
  ILogger &log_;
  std::map<std::string, void *> addresses_;
};

class Engine final : public ICudaEngine {
 public:
  Engine(OrtSession *session, ILogger &log) : session_(session), log_(log) {
    OrtAllocator *allocator = nullptr;
    require(ort->default_allocator(&allocator));
    for (const TensorIOMode mode : {TensorIOMode::kINPUT, TensorIOMode::kOUTPUT}) {
      const bool in = mode == TensorIOMode::kINPUT;
      size_t count = 0;
      require((in ? ort->input_count : ort->output_count)(session, &count));
      for (size_t i = 0; i < count; ++i) {
        char *name = nullptr;
        OrtTypeInfo *type = nullptr;
        const OrtTensorInfo *info = nullptr;
        size_t rank = 0;
        require((in ? ort->input_name : ort->output_name)(session, i, allocator, &name));
        require((in ? ort->input_type : ort->output_type)(session, i, &type));
        require(ort->tensor_info(type, &info));
        Tensor tensor = {name, mode, {}, 0};
        require(ort->element_type(info, &tensor.type));
        require(ort->dimension_count(info, &rank));
        tensor.shape.nbDims = static_cast<int32_t>(rank);
        require(ort->dimensions(info, tensor.shape.d, rank));
        tensors_.push_back(tensor);
      }
    }
  }

  int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(tensors_.size()); }
  const char *getIOTensorName(int32_t index) const noexcept override {
    return tensors_[static_cast<size_t>(index)].name.c_str();
  }
  Dims getTensorShape(const char *name) const noexcept override { return find(name).shape; }
  DataType getTensorDataType(const char *name) const noexcept override {
    return data_type(find(name).type);
  }
  TensorIOMode getTensorIOMode(const char *name) const noexcept override { return find(name).mode; }
  IExecutionContext *createExecutionContext() noexcept override {
    return new Context(session_, tensors_, log_);
  }

 private:
  const Tensor &find(const char *name) const {
    for (const Tensor &tensor : tensors_) {
      if (tensor.name == name) return tensor;
    }
    std::abort();
  }

  OrtSession *session_;
  ILogger &log_;
  std::vector<Tensor> tensors_;
};

class Runtime final : public IRuntime {
 public:
  explicit Runtime(ILogger &log) : log_(log) {}

  ICudaEngine *deserializeCudaEngine(const void *content, size_t bytes) noexcept override {
    if (bytes < 4 || std::memcmp(content, "ptrt", 4) != 0 || failed("open")) {
      log_.log(ILogger::Severity::kERROR, "the engine is not of this TensorRT");
      return nullptr;
    }
    OrtSessionOptions *options = nullptr;
    OrtSession *session = nullptr;
    require(ort->create_session_options(&options));
    require(ort->set_intra_op_threads(options, 1));
    require(ort->create_session_from_array(env, static_cast<const char *>(content) + 4, bytes - 4,
                                           options, &session));
    return new Engine(session, log_);
  }

 private:
  ILogger &log_;
};

}  // namespace

namespace nvinfer1 {

__attribute__((visibility("default"))) IRuntime *createInferRuntime(ILogger &logger) noexcept {
  if (ort == nullptr) {
    void *library = dlopen(std::getenv("FAKE_TRT_ORT"), RTLD_NOW | RTLD_LOCAL);
    using Base = const fake::ApiBase *(*)();
    ort = new fake::Api(reinterpret_cast<Base>(dlsym(library, "OrtGetApiBase"))());
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    require(ort->create_env(4, "fake", &env));
    require(ort->create_cpu_memory_info(1, 0, &host));
  }
  return new Runtime(logger);
}

}  // namespace nvinfer1
