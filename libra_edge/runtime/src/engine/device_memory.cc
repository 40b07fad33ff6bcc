#include "engine/device_memory.h"

namespace le {
namespace {

// Values of ONNX Runtime's enumerations.
constexpr int kDefaultMemory = 0, kDeviceAllocator = 0;
constexpr const char *kWhat = "The device's memory";

OrtHandle<OrtIoBinding> create_binding(const Ort &ort, OrtSession &session) {
  OrtIoBinding *binding = nullptr;
  ort.check(ort.create_io_binding(&session, &binding), kWhat);
  return {binding, ort.release_io_binding};
}

}  // namespace

DeviceMemory::DeviceMemory(const Ort &ort, OrtEnv &env, const OrtEpDevice &device,
                           const OrtMemoryInfo &memory, OrtSession &session,
                           const Signature &signature)
    : ort_(ort), env_(env), session_(session), binding_(create_binding(ort, session)) {
  ort.check(ort.shared_allocator(&env, &memory, &allocator_), kWhat);
  if (allocator_ == nullptr) {
    ort.check(ort.create_shared_allocator(&env, &device, kDefaultMemory, kDeviceAllocator, nullptr,
                                          &allocator_),
              kWhat);
  }
  for (const TensorSpec &spec : signature.inputs) {
    inputs_.push_back(allocate(memory, spec));
    ort.check(ort.bind_input(binding_.get(), spec.name, inputs_.back()), kWhat);
  }
  for (const TensorSpec &spec : signature.outputs) {
    OrtValue *value = allocate(memory, spec);
    outputs_.push_back(value);
    ort.check(ort.bind_output(binding_.get(), spec.name, value), kWhat);
  }
}

DeviceMemory::~DeviceMemory() {
  binding_.reset();
  owners_.clear();
  for (void *block : blocks_) {
    if (OrtStatus *status = ort_.allocator_free(allocator_, block)) ort_.release_status(status);
  }
}

OrtValue *DeviceMemory::allocate(const OrtMemoryInfo &memory, const TensorSpec &spec) {
  void *block = nullptr;
  ort_.check(ort_.allocator_alloc(allocator_, spec.bytes(), &block), kWhat);
  blocks_.push_back(block);
  OrtValue *value = nullptr;
  ort_.check(ort_.create_tensor(&memory, block, spec.bytes(), spec.shape.data(), spec.shape.size(),
                                static_cast<int>(spec.type), &value),
             kWhat);
  owners_.emplace_back(value, ort_.release_value);
  return value;
}

void DeviceMemory::run(const std::vector<const OrtValue *> &inputs,
                       const std::vector<OrtValue *> &outputs) {
  const std::scoped_lock locked(lock_);
  ort_.check(ort_.copy_tensors(&env_, inputs.data(), inputs_.data(), nullptr, inputs.size()),
             kWhat);
  ort_.check(ort_.run_with_binding(&session_, nullptr, binding_.get()), kWhat);
  ort_.check(ort_.copy_tensors(&env_, outputs_.data(), outputs.data(), nullptr, outputs.size()),
             kWhat);
}

}  // namespace le
