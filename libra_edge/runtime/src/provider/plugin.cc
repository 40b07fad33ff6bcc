#include "provider/plugin.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "error.h"
#include "provider/files.h"
#include "release/manifest_table.h"

namespace le {
namespace {

// Values of ONNX Runtime's enumerations.
constexpr int kHardwareCpu = 0, kHardwareGpu = 1;
constexpr int kNotApplicable = 0, kUnsupported = 3;
constexpr int kLogFatal = 4;

// Of one ONNX Runtime: which files each of its providers was registered from.
using Digests = std::vector<Digest>;
struct Registered {
  Digests digests;
  std::string folder;                // where its files were, by the name that it remembers
  std::weak_ptr<LinkedFiles> files;  // while somebody needs them
};
struct Registry {
  std::mutex lock;
  std::map<std::pair<const void *, std::string>, Registered> registered;
};

Registry &registry() {
  static auto *const found = new Registry;  // outlives every user
  return *found;
}

void register_files(const Ort &ort, OrtEnv *env, const ProviderRule &provider,
                    const std::vector<const ProviderFile *> &files, const LinkedFiles &linked) {
  linked.load(files);
  OrtStatus *status = ort.register_library(env, provider.name, linked.plugin().c_str());
  if (status != nullptr) {
    const OrtHandle<OrtStatus> owner(status, ort.release_status);
    fail(LE_NO_PROVIDER, "%s does not start: %.300s", provider.words, ort.error_message(status));
  }
  // ONNX Runtime forgets a provider with its last environment, and unloads it; so one of them
  // stays.
  OrtEnv *kept = nullptr;
  ort.check(ort.create_env(kLogFatal, "libra_edge", &kept), "ONNX Runtime");
}

const OrtEpDevice *only_device(const Ort &ort, const OrtEnv *env, const ProviderRule &provider) {
  const OrtEpDevice *const *devices = nullptr;
  size_t count = 0, fitting = 0;
  ort.check(ort.get_ep_devices(env, &devices, &count), "ONNX Runtime");
  const OrtEpDevice *found = nullptr;
  const int wanted = provider.on_gpu ? kHardwareGpu : kHardwareCpu;
  for (size_t i = 0; i < count; ++i) {
    if (std::string(ort.ep_name(devices[i])) != provider.name) continue;
    if (ort.hardware_type(ort.ep_hardware(devices[i])) != wanted) continue;
    found = devices[i];
    ++fitting;
  }
  const char *kind = provider.on_gpu ? "GPU" : "processor";
  if (fitting == 0) {
    fail(LE_NO_DEVICE, "%s finds no %s on this machine that it runs on.", provider.words, kind);
  }
  if (fitting > 1) {
    fail(LE_SEVERAL_DEVICES, "%s finds %zu devices of the kind %s, and nobody said which one.",
         provider.words, fitting, kind);
  }
  return found;
}

std::string hex(const std::vector<uint8_t> &bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace

Placement register_provider(const Ort &ort, OrtEnv *env, const ProviderRule &provider,
                            const Release &release) {
  std::vector<const ProviderFile *> files;
  Digests digests;
  for (size_t i = 0; i < provider.file_count; ++i) {
    const std::string name = kProviderFiles[provider.first_file + i];
    for (const ProviderFile &file : release.provider_files) {
      if (name != file.member) continue;
      files.push_back(&file);
      digests.push_back(file.sha256);
    }
  }
  Placement placement;
  Registry &known = registry();
  const std::scoped_lock locked(known.lock);
  const auto key =
      std::make_pair(static_cast<const void *>(ort.table()), std::string(provider.name));
  const auto at = known.registered.find(key);
  if (at == known.registered.end()) {
    placement.files = std::make_shared<LinkedFiles>(files, std::string());
    register_files(ort, env, provider, files, *placement.files);
    known.registered[key] = {digests, placement.files->folder(), placement.files};
  } else if (at->second.digests != digests) {
    fail(LE_INCOMPATIBLE,
         "This process already runs %s from other files: open this release in another process.",
         provider.words);
  } else if (placement.files = at->second.files.lock(); placement.files == nullptr) {
    placement.files = std::make_shared<LinkedFiles>(files, at->second.folder);
    at->second.files = placement.files;
  }
  placement.device = only_device(ort, env, provider);
  return placement;
}

void require_compatible(const Ort &ort, const OrtEpDevice *device, const ProviderRule &provider,
                        const char *member, const std::vector<uint8_t> &header) {
  int verdict = kNotApplicable;
  ort.check(ort.model_compatibility(&device, 1, hex(header).c_str(), &verdict), member);
  if (verdict == kUnsupported || verdict == kNotApplicable) {
    fail(LE_ENGINE_REFUSED, "%s: %s says that it cannot run this engine on this machine.", member,
         provider.words);
  }
}

std::vector<std::pair<std::string, std::string>> provider_options(const ProviderRule &provider,
                                                                  OptionFor engine,
                                                                  uint32_t threads,
                                                                  const std::string &cache) {
  static const std::string kThreads = "{threads}", kCache = "{cache}";
  std::vector<std::pair<std::string, std::string>> options;
  for (size_t i = 0; i < provider.option_count; ++i) {
    const ProviderOption &option = kProviderOptions[provider.first_option + i];
    if (option.engine != OptionFor::kBoth && option.engine != engine) continue;
    std::string value = option.value;
    if (value == kCache) {
      if (!cache.empty()) options.emplace_back(option.key, cache);
      continue;
    }
    if (const size_t place = value.find(kThreads); place != std::string::npos) {
      value.replace(place, kThreads.size(), std::to_string(threads));
    }
    options.emplace_back(option.key, value);
  }
  return options;
}

}  // namespace le
