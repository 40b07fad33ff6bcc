#include "engine/engine.h"

#include <string>

#include "error.h"

namespace le {
namespace {

// Values of ONNX Runtime's enumerations.
constexpr int kArenaAllocator = 1;
constexpr int kDefaultMemory = 0;

// Calls until a device has compiled, tuned and recorded what it will run from then on.
constexpr int kWarmUpCalls = 3;

void place(const Ort &ort, OrtEnv &env, OrtSessionOptions *options, const char *name,
           const Placement &placement) {
  std::vector<const char *> keys, values;
  for (const auto &[key, value] : placement.options) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  // Else a node that the provider does not take runs on the CPU, and nobody is told.
  ort.check(ort.add_session_config_entry(options, "session.disable_cpu_ep_fallback", "1"), name);
  ort.check(ort.append_provider(options, &env, &placement.device, 1, keys.data(), values.data(),
                                keys.size()),
            name);
}

OrtHandle<OrtSession> create_session(const Ort &ort, OrtEnv &env, const char *name,
                                     const std::vector<uint8_t> &graph,
                                     const SessionOptions &options, uint32_t threads,
                                     const Placement &placement) {
  OrtSessionOptions *raw_options = nullptr;
  ort.check(ort.create_session_options(&raw_options), name);
  const OrtHandle<OrtSessionOptions> owner(raw_options, ort.release_session_options);
  ort.check(ort.set_intra_op_threads(raw_options, static_cast<int>(threads)), name);
  // Threads that spin between calls starve the control loop on a loaded machine.
  ort.check(ort.add_session_config_entry(raw_options, "session.intra_op.allow_spinning", "0"),
            name);
  // A graph that asks for weights in another file would get them from the working directory;
  // nothing lies in here.
  ort.check(ort.add_session_config_entry(
                raw_options, "session.model_external_initializers_file_folder_path", "/dev/null/"),
            name);
  for (const auto &[key, value] : options) {
    ort.check(ort.add_session_config_entry(raw_options, key.c_str(), value.c_str()), name);
  }
  if (placement.device != nullptr) place(ort, env, raw_options, name, placement);
  OrtSession *session = nullptr;
  ort.check(ort.create_session_from_array(&env, graph.data(), graph.size(), raw_options, &session),
            name);
  return {session, ort.release_session};
}

std::vector<const char *> names_of(const std::vector<TensorSpec> &specs) {
  std::vector<const char *> names;
  for (const TensorSpec &spec : specs) names.push_back(spec.name);
  return names;
}

}  // namespace

void build_engine(const Ort &ort, OrtEnv &env, const char *name, const std::vector<uint8_t> &graph,
                  uint32_t threads, const Placement &placement, const std::string &path) {
  const SessionOptions options = {
      {"ep.context_enable", "1"}, {"ep.context_embed_mode", "1"}, {"ep.context_file_path", path}};
  create_session(ort, env, name, graph, options, threads, placement);
}

Engine::Engine(const Ort &ort, OrtEnv &env, const char *name, const std::vector<uint8_t> &graph,
               Signature signature, const SessionOptions &options, uint32_t threads,
               const Placement &placement)
    : ort_(ort),
      name_(name),
      signature_(std::move(signature)),
      session_(create_session(ort, env, name, graph, options, threads, placement)),
      input_names_(names_of(signature_.inputs)),
      output_names_(names_of(signature_.outputs)) {
  check_specs(true, signature_.inputs);
  check_specs(false, signature_.outputs);
  if (placement.device == nullptr) return;
  const OrtMemoryInfo *memory = ort.device_memory(placement.device, kDefaultMemory);
  if (memory != nullptr) {
    device_memory_ =
        std::make_unique<DeviceMemory>(ort, env, *placement.device, *memory, *session_, signature_);
  }
  warm_up();
}

void Engine::warm_up() const {
  std::vector<std::vector<uint8_t>> content;
  std::vector<void *> inputs, outputs;
  const auto add = [&](const std::vector<TensorSpec> &specs, std::vector<void *> *to) {
    for (const TensorSpec &spec : specs) {
      content.emplace_back(spec.bytes());
      to->push_back(content.back().data());
    }
  };
  add(signature_.inputs, &inputs);
  add(signature_.outputs, &outputs);
  Binding binding = bind(inputs, outputs);
  for (int i = 0; i < kWarmUpCalls; ++i) run(binding);
}

void Engine::check_type(const TensorSpec &spec, const OrtTypeInfo *type) const {
  const OrtTensorInfo *info = nullptr;
  ort_.check(ort_.tensor_info(type, &info), name_);
  int element = 0;
  std::vector<int64_t> shape;
  if (info != nullptr) {
    ort_.check(ort_.element_type(info, &element), name_);
    size_t rank = 0;
    ort_.check(ort_.dimension_count(info, &rank), name_);
    shape.resize(rank);
    ort_.check(ort_.dimensions(info, shape.data(), rank), name_);
  }
  if (element != static_cast<int>(spec.type) || shape != spec.shape) {
    const TensorSpec found = {spec.name, static_cast<ElementType>(element), shape};
    fail(LE_ENGINE, "%s: expected %s, the engine has %s.", name_, describe(spec).c_str(),
         describe(found).c_str());
  }
}

void Engine::check_specs(bool input, const std::vector<TensorSpec> &specs) const {
  const auto count_of = input ? ort_.input_count : ort_.output_count;
  const auto name_of = input ? ort_.input_name : ort_.output_name;
  const auto type_of = input ? ort_.input_type : ort_.output_type;
  size_t count = 0;
  ort_.check(count_of(session_.get(), &count), name_);
  if (count != specs.size()) {
    fail(LE_ENGINE, "%s: the engine has %zu %s; %zu are expected.", name_, count,
         input ? "inputs" : "outputs", specs.size());
  }
  OrtAllocator *allocator = nullptr;
  ort_.check(ort_.default_allocator(&allocator), name_);
  for (size_t i = 0; i < count; ++i) {
    char *raw_name = nullptr;
    ort_.check(name_of(session_.get(), i, allocator, &raw_name), name_);
    const std::string name = raw_name;
    ort_.check(ort_.allocator_free(allocator, raw_name), name_);
    OrtTypeInfo *type = nullptr;
    ort_.check(type_of(session_.get(), i, &type), name_);
    const OrtHandle<OrtTypeInfo> owner(type, ort_.release_type_info);
    const TensorSpec *expected = nullptr;
    for (const TensorSpec &spec : specs) {
      if (name == spec.name) expected = &spec;
    }
    if (expected == nullptr) fail(LE_ENGINE, "%s: %s is unknown.", name_, name.c_str());
    check_type(*expected, type);
  }
}

OrtHandle<OrtValue> Engine::tensor(const OrtMemoryInfo *memory, const TensorSpec &spec,
                                   void *data) const {
  OrtValue *value = nullptr;
  ort_.check(ort_.create_tensor(memory, data, spec.bytes(), spec.shape.data(), spec.shape.size(),
                                static_cast<int>(spec.type), &value),
             name_);
  return {value, ort_.release_value};
}

Binding Engine::bind(const std::vector<void *> &inputs, const std::vector<void *> &outputs) const {
  OrtMemoryInfo *raw_memory = nullptr;
  ort_.check(ort_.create_cpu_memory_info(kArenaAllocator, kDefaultMemory, &raw_memory), name_);
  const OrtHandle<OrtMemoryInfo> memory(raw_memory, ort_.release_memory_info);
  Binding binding;
  for (size_t i = 0; i < signature_.inputs.size(); ++i) {
    binding.owners.push_back(tensor(memory.get(), signature_.inputs[i], inputs[i]));
    binding.inputs.push_back(binding.owners.back().get());
  }
  for (size_t i = 0; i < signature_.outputs.size(); ++i) {
    binding.owners.push_back(tensor(memory.get(), signature_.outputs[i], outputs[i]));
    binding.outputs.push_back(binding.owners.back().get());
  }
  return binding;
}

void Engine::run(Binding &binding) const {
  if (device_memory_ != nullptr) return device_memory_->run(binding.inputs, binding.outputs);
  ort_.check(ort_.run(session_.get(), nullptr, input_names_.data(), binding.inputs.data(),
                      binding.inputs.size(), output_names_.data(), binding.outputs.size(),
                      binding.outputs.data()),
             name_);
}

}  // namespace le
