// A plug-in provider for tests that goes by the name of NVIDIA's for RTX GPUs.
//
// It takes EPContext nodes. Their engine is a header as TensorRT for RTX writes it, and then a
// plain ONNX graph, which runs on the CPU through the very ONNX Runtime that loaded it: an engine
// for this "GPU" gives what the graph gives, bit for bit, or what a test asks for. Nothing is torn
// down: a library that zig links must not have destructors.
//
// From the environment, at each use: FAKE_GPU_COUNT (1), FAKE_GPU_CC (8.9), FAKE_GPU_REFUSES=1 (its
// verdict on any engine), FAKE_GPU_FAULT = run | nan | slow_ms:N | first_slow_ms:N, FAKE_GPU_ONLY =
// planner | refiner (which engine that is for), FAKE_GPU_COUNTERS (a file to count in).
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "ep_api.h"

using namespace fake;

namespace {

constexpr const char *kName = "NvTensorRTRTXExecutionProvider";
constexpr uint32_t kVendor = 0xfa4e;
constexpr size_t kHeaderBytes = 64, kCapabilityAt = 32;
constexpr int kInvalidArgument = 2, kEngineError = 11;
constexpr int kStringAttribute = 5, kGpu = 1;

const Api *ort;
const EpApi *ep_api;

#define TRY(call) \
  if (OrtStatus *status_ = (call)) return status_

OrtStatus *refuse(int code, const char *text) {
  return ort->create_status(code, text);
}

const char *setting(const char *name, const char *otherwise) {
  const char *value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

// Shared with the test through a file.
struct Counters {
  std::atomic<uint64_t> copies_in, copies_out, allocations, calls, graphs, highest, lowest;
};

Counters &counters() {
  static Counters *found = [] {
    void *memory = std::calloc(1, sizeof(Counters));
    const int file = open(setting("FAKE_GPU_COUNTERS", ""), O_RDWR);
    if (file >= 0) {
      memory = mmap(nullptr, sizeof(Counters), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    return static_cast<Counters *>(memory);
  }();
  return *found;
}

uint32_t own_capability() {
  const std::string text = setting("FAKE_GPU_CC", "8.9");
  return text == "8.6" ? 4 : text == "8.9" ? 8 : 16;
}

bool fits(const unsigned char *header) {
  uint32_t capability;
  std::memcpy(&capability, header + kCapabilityAt, sizeof capability);
  return std::memcmp(header, "vtrt", 4) == 0 && capability == own_capability() &&
         std::getenv("FAKE_GPU_REFUSES") == nullptr;
}

OrtStatus *attribute(const OrtNode *node, const char *name, std::string *out) {
  const OrtOpAttr *found = nullptr;
  TRY(ort->node_attribute(node, name, &found));
  if (found == nullptr) return nullptr;
  size_t size = 0;
  // The first call tells the size, as a failure.
  if (OrtStatus *s = ort->read_attribute(found, kStringAttribute, nullptr, 0, &size)) {
    ort->release_status(s);
  }
  out->resize(size);
  return ort->read_attribute(found, kStringAttribute, out->data(), size, &size);
}

// An engine that was loaded: OrtNodeComputeInfo.
struct Compute {
  uint32_t version = kApiVersion;
  OrtStatus *(*create_state)(Compute *, void *, void **) = [](Compute *self, void *,
                                                              void **state) -> OrtStatus * {
    *state = self;
    return nullptr;
  };
  OrtStatus *(*compute)(Compute *, void *, OrtKernelContext *) =
      [](Compute *self, void *, OrtKernelContext *context) { return self->run(context); };
  void (*release_state)(Compute *, void *) = [](Compute *, void *) {};

  OrtSession *session = nullptr;
  OrtMemoryInfo *host = nullptr;
  std::vector<std::string> inputs, outputs;
  std::vector<std::vector<int64_t>> shapes;  // of the outputs
  uint64_t calls = 0;

  // The same memory, as the inner session may see it.
  OrtStatus *on_host(const OrtValue *value, OrtValue **out) const {
    OrtTensorInfo *info = nullptr;
    TRY(ort->value_info(value, &info));
    int type = 0;
    size_t rank = 0, bytes = 0;
    TRY(ort->element_type(info, &type));
    TRY(ort->dimension_count(info, &rank));
    std::vector<int64_t> shape(rank);
    TRY(ort->dimensions(info, shape.data(), rank));
    ort->release_tensor_info(info);
    TRY(ort->tensor_bytes(value, &bytes));
    void *data = nullptr;
    TRY(ort->tensor_data(const_cast<OrtValue *>(value), &data));
    return ort->create_tensor(host, data, bytes, shape.data(), rank, type, out);
  }

  std::string fault() {
    const std::string only = setting("FAKE_GPU_ONLY", "");
    const bool refines = outputs.front() == "actions";
    if (!only.empty() && refines != (only == "refiner")) return {};
    return setting("FAKE_GPU_FAULT", "");
  }

  OrtStatus *run(OrtKernelContext *context) {
    ++counters().calls;
    const std::string wanted = fault();
    const auto number = [&](const char *prefix) {
      const size_t length = std::strlen(prefix);
      return wanted.compare(0, length, prefix) == 0 ? std::atoi(wanted.c_str() + length) : 0;
    };
    if (wanted == "run") return refuse(kEngineError, "the device has fallen off the bus");
    usleep(1000 * number("slow_ms:"));
    if (calls++ == 0) usleep(1000 * number("first_slow_ms:"));
    std::vector<OrtValue *> in, out;
    std::vector<const char *> in_names, out_names;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const OrtValue *value = nullptr;
      TRY(ort->context_input(context, i, &value));
      TRY(on_host(value, &in.emplace_back()));
      in_names.push_back(inputs[i].c_str());
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      OrtValue *value = nullptr;
      TRY(ort->context_output(context, i, shapes[i].data(), shapes[i].size(), &value));
      TRY(on_host(value, &out.emplace_back()));
      out_names.push_back(outputs[i].c_str());
    }
    OrtStatus *status = ort->run(session, nullptr, in_names.data(), in.data(), in.size(),
                                 out_names.data(), out.size(), out.data());
    if (status == nullptr && wanted == "nan") {
      void *data = nullptr;
      TRY(ort->tensor_data(out.back(), &data));
      *static_cast<float *>(data) = NAN;
    }
    for (OrtValue *value : in) ort->release_value(value);
    for (OrtValue *value : out) ort->release_value(value);
    return status;
  }
};

// OrtEp. What is null is not asked for.
struct Ep {
  uint32_t version = kApiVersion;
  const char *(*name)(const Ep *) = [](const Ep *) { return kName; };
  OrtStatus *(*capability)(Ep *, const OrtGraph *, void *) = [](Ep *, const OrtGraph *graph,
                                                                void *support) -> OrtStatus * {
    size_t count = 0;
    TRY(ort->node_count(graph, &count));
    std::vector<const OrtNode *> nodes(count);
    TRY(ort->nodes(graph, nodes.data(), count));
    for (const OrtNode *node : nodes) {
      const char *type = nullptr;
      std::string source;
      TRY(ort->node_type(node, &type));
      if (std::strcmp(type, "EPContext") != 0) continue;
      TRY(attribute(node, "source", &source));
      if (source.c_str() != std::string(kName)) continue;
      TRY(ep_api->add_nodes_to_fuse(support, &node, 1, nullptr));
    }
    return nullptr;
  };
  OrtStatus *(*compile)(Ep *, const OrtGraph **, const OrtNode **, size_t, Compute **,
                        OrtNode **) = [](Ep *self, const OrtGraph **graphs, const OrtNode **fused,
                                         size_t count, Compute **out, OrtNode **) -> OrtStatus * {
    for (size_t i = 0; i < count; ++i) TRY(self->load(graphs[i], fused[i], &out[i]));
    return nullptr;
  };
  void (*release)(Ep *, Compute **, size_t) = [](Ep *, Compute **, size_t) {};
  void *rest[40] = {};

  OrtEnv *env = nullptr;
  OrtMemoryInfo *host = nullptr;

  OrtStatus *load(const OrtGraph *graph, const OrtNode *fused, Compute **out) const {
    const OrtNode *node = nullptr;
    std::string engine;
    TRY(ort->nodes(graph, &node, 1));
    TRY(attribute(node, "ep_cache_context", &engine));
    if (engine.size() < kHeaderBytes ||
        !fits(reinterpret_cast<const unsigned char *>(engine.data()))) {
      return refuse(kEngineError, "the engine was compiled for another GPU");
    }
    auto *loaded = new Compute;
    loaded->host = host;
    OrtSessionOptions *options = nullptr;
    TRY(ort->create_session_options(&options));
    TRY(ort->set_intra_op_threads(options, 1));
    TRY(ort->create_session_from_array(env, engine.data() + kHeaderBytes,
                                       engine.size() - kHeaderBytes, options, &loaded->session));
    TRY(names(fused, ort->node_input_count, ort->node_inputs, &loaded->inputs));
    TRY(names(fused, ort->node_output_count, ort->node_outputs, &loaded->outputs));
    for (const std::string &name : loaded->outputs) {
      TRY(shape_of(loaded->session, name, &loaded->shapes.emplace_back()));
    }
    *out = loaded;
    return nullptr;
  }

  template <typename Count, typename List>
  static OrtStatus *names(const OrtNode *node, Count count_of, List list,
                          std::vector<std::string> *out) {
    size_t count = 0;
    TRY(count_of(node, &count));
    std::vector<const OrtValueInfo *> values(count);
    TRY(list(node, values.data(), count));
    for (const OrtValueInfo *value : values) {
      const char *name = nullptr;
      TRY(ort->value_name(value, &name));
      out->push_back(name);
    }
    return nullptr;
  }

  static OrtStatus *shape_of(OrtSession *session, const std::string &wanted,
                             std::vector<int64_t> *out) {
    size_t count = 0, rank = 0;
    OrtAllocator *allocator = nullptr;
    TRY(ort->default_allocator(&allocator));
    TRY(ort->output_count(session, &count));
    for (size_t i = 0; i < count; ++i) {
      char *name = nullptr;
      TRY(ort->output_name(session, i, allocator, &name));
      if (wanted != name) continue;
      OrtTypeInfo *type = nullptr;
      const OrtTensorInfo *info = nullptr;
      TRY(ort->output_type(session, i, &type));
      TRY(ort->tensor_info(type, &info));
      TRY(ort->dimension_count(info, &rank));
      out->resize(rank);
      TRY(ort->dimensions(info, out->data(), rank));
    }
    return nullptr;
  }
};

// OrtAllocator of the device.
struct Memory {
  uint32_t version = kApiVersion;
  void *(*alloc)(Memory *, size_t) = [](Memory *, size_t bytes) {
    ++counters().allocations;
    return std::aligned_alloc(64, (bytes + 63) & ~size_t{63});
  };
  void (*free)(Memory *, void *) = [](Memory *, void *block) { std::free(block); };
  const OrtMemoryInfo *(*info)(const Memory *) = [](const Memory *self) { return self->memory; };
  void *rest[8] = {};
  const OrtMemoryInfo *memory = nullptr;
};

// OrtDataTransferImpl.
struct Transfer {
  uint32_t version = kApiVersion;
  void (*release)(Transfer *) = [](Transfer *) {};
  bool (*can_copy)(const Transfer *, const OrtMemoryDevice *, const OrtMemoryDevice *) =
      [](const Transfer *, const OrtMemoryDevice *from, const OrtMemoryDevice *to) {
        return ep_api->memory_vendor(from) == kVendor || ep_api->memory_vendor(to) == kVendor;
      };
  OrtStatus *(*copy)(Transfer *, const OrtValue **, OrtValue **, OrtSyncStream **,
                     size_t) = [](Transfer *, const OrtValue **from, OrtValue **to,
                                  OrtSyncStream **, size_t count) -> OrtStatus * {
    for (size_t i = 0; i < count; ++i) {
      void *source = nullptr, *target = nullptr;
      size_t bytes = 0;
      TRY(ort->tensor_bytes(from[i], &bytes));
      TRY(ort->tensor_data(const_cast<OrtValue *>(from[i]), &source));
      TRY(ort->tensor_data(to[i], &target));
      const bool in = ep_api->memory_vendor(ep_api->value_memory_device(to[i])) == kVendor;
      ++(in ? counters().copies_in : counters().copies_out);
      std::memcpy(target, source, bytes);
    }
    return nullptr;
  };
};

// OrtEpFactory.
struct Factory {
  uint32_t version = kApiVersion;
  const char *(*name)(const Factory *) = [](const Factory *) { return kName; };
  const char *(*vendor)(const Factory *) = [](const Factory *) { return "tests"; };
  OrtStatus *(*devices)(Factory *, const OrtHardwareDevice *const *, size_t, OrtEpDevice **, size_t,
                        size_t *) = [](Factory *self, const OrtHardwareDevice *const *, size_t,
                                       OrtEpDevice **out, size_t most,
                                       size_t *count) -> OrtStatus * {
    *count = 0;
    const size_t wanted = std::strtoul(setting("FAKE_GPU_EP_COUNT", "1"), nullptr, 10);
    for (; *count < wanted && *count < most; ++*count) {
      OrtHardwareDevice *hardware = nullptr;
      OrtMemoryInfo *memory = nullptr;
      const auto number = static_cast<int32_t>(*count);
      TRY(ep_api->create_hardware(kGpu, kVendor, 0x2684u, "tests", nullptr, &hardware));
      TRY(ep_api->create_device(self, hardware, nullptr, nullptr, &out[*count]));
      TRY(ort->create_memory_info("FakeGpu", kGpu, kVendor, number, 0, 64, 0, &memory));
      TRY(ep_api->add_allocator_info(out[*count], memory));
    }
    return nullptr;
  };
  OrtStatus *(*create_ep)(Factory *, const OrtHardwareDevice *const *,
                          const OrtKeyValuePairs *const *, size_t, const OrtSessionOptions *,
                          const OrtLogger *, Ep **) =
      [](Factory *, const OrtHardwareDevice *const *, const OrtKeyValuePairs *const *, size_t,
         const OrtSessionOptions *, const OrtLogger *, Ep **out) -> OrtStatus * {
    auto *ep = new Ep;
    TRY(ort->create_env(4, "fake", &ep->env));
    TRY(ort->create_cpu_memory_info(1, 0, &ep->host));
    *out = ep;
    return nullptr;
  };
  void (*release_ep)(Factory *, Ep *) = [](Factory *, Ep *) {};
  uint32_t (*vendor_id)(const Factory *) = [](const Factory *) { return kVendor; };
  const char *(*ep_version)(const Factory *) = [](const Factory *) { return "1.0.0"; };
  OrtStatus *(*validate)(Factory *, const OrtHardwareDevice *const *, size_t, const char *,
                         int *) = [](Factory *, const OrtHardwareDevice *const *, size_t,
                                     const char *hex, int *verdict) -> OrtStatus * {
    unsigned char header[kHeaderBytes] = {};
    for (size_t i = 0; i < kHeaderBytes && hex[2 * i] != '\0'; ++i) {
      const char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
      header[i] = static_cast<unsigned char>(std::strtoul(digits, nullptr, 16));
    }
    *verdict = fits(header) ? 1 : 3;  // optimal, or unsupported
    return nullptr;
  };
  OrtStatus *(*create_allocator)(Factory *, const OrtMemoryInfo *, const OrtKeyValuePairs *,
                                 Memory **) = [](Factory *, const OrtMemoryInfo *info,
                                                 const OrtKeyValuePairs *,
                                                 Memory **out) -> OrtStatus * {
    *out = new Memory;
    (*out)->memory = info;
    return nullptr;
  };
  void (*release_allocator)(Factory *, Memory *) = [](Factory *, Memory *) {};
  OrtStatus *(*create_transfer)(Factory *, Transfer **) = [](Factory *,
                                                             Transfer **out) -> OrtStatus * {
    *out = new Transfer;
    return nullptr;
  };
  bool (*is_stream_aware)(const Factory *) = [](const Factory *) { return false; };
  OrtStatus *(*create_stream)(Factory *, const OrtMemoryDevice *, const OrtKeyValuePairs *,
                              void **) = [](Factory *, const OrtMemoryDevice *,
                                            const OrtKeyValuePairs *, void **out) -> OrtStatus * {
    *out = nullptr;
    return nullptr;
  };
  void *rest[24] = {};
};

}  // namespace

extern "C" __attribute__((visibility("default"))) OrtStatus *CreateEpFactories(
    const char *, const ApiBase *base, const OrtLogger *, Factory **factories, size_t most,
    size_t *count) {
  ort = new Api(base);
  ep_api = ort->provider_api();
  if (most < 1) return refuse(kInvalidArgument, "no room for a factory");
  if (std::getenv("FAKE_GPU_STARTS_NOT") != nullptr) {
    return refuse(kEngineError, "the provider cannot start");
  }
  factories[0] = new Factory;
  *count = 1;
  return nullptr;
}

extern "C" __attribute__((visibility("default"))) OrtStatus *ReleaseEpFactory(Factory *) {
  return nullptr;
}
