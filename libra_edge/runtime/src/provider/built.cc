#include "provider/built.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "error.h"
#include "provider/driver.h"
#include "release/folder.h"
#include "release/json.h"
#include "release/manifest_table.h"
#include "release/sha256.h"

namespace le {
namespace {

constexpr const char *kMark = "usable.json";
constexpr uint64_t kMarkSchema = 2;
constexpr uint64_t kMostMarkBytes = 1 << 20, kMostEngineBytes = uint64_t{1} << 31;

// What a Jetson has of its own: no file of it comes with a release.
constexpr ProviderRule kTensorRt = {
    kTensorRtProvider, "TensorRT", "tensorrt", true, true, 0, 0, 0, 0};

std::string hex(const Digest &digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::vector<uint8_t> read_file(const Folder &folder, const char *name, uint64_t most) {
  const File file = folder.open(name);
  const uint64_t size = file.size();
  if (size > most) fail(LE_INTEGRITY, "%s is too large.", name);
  std::vector<uint8_t> content(size);
  content.resize(file.read(content.data(), content.size()));
  return content;
}

Folder open_folder(const char *path) {
  struct stat status;
  if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode)) {
    fail(LE_INVALID_ARGUMENT, "%.200s is no folder of engines.", path);
  }
  return Folder(path);
}

std::string processor() {
  std::ifstream facts("/proc/cpuinfo");
  for (std::string line; std::getline(facts, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return own_arch();
}

// A text of the driver's or the kernel's as JSON; what has no place in a name is left out.
std::string quoted(const std::string &text) {
  std::string found = "\"";
  for (const char c : text) {
    if (c >= ' ' && c <= '~' && c != '"' && c != '\\') found += c;
  }
  return found + '"';
}

std::string sha256_of(const std::vector<uint8_t> &content) {
  return hex(sha256(reinterpret_cast<const char *>(content.data()), content.size()));
}

std::vector<uint8_t> read_engine(const Folder &folder, const Json &engines, const char *name) {
  std::vector<uint8_t> content = read_file(folder, name, kMostEngineBytes);
  if (engines.at(name).text() != sha256_of(content)) {
    fail(LE_INTEGRITY, "%s is not the engine that %s names: build it again.", name, kMark);
  }
  return content;
}

}  // namespace

bool is_direct(const ProviderRule &provider) {
  return &provider == &kTensorRt;
}

const ProviderRule &provision_provider(const Manifest &manifest) {
  if (manifest.provision_provider.empty()) {
    fail(LE_INVALID_ARGUMENT, "This release leaves no engines to be built on the robot.");
  }
  if (manifest.provision_provider == kTensorRt.name) return kTensorRt;
  for (const ProviderRule &rule : kProviderRules) {
    if (manifest.provision_provider != rule.name) continue;
    require_files(rule, manifest.members, "What is built here");
    return rule;
  }
  fail(LE_NO_PROVIDER, "This library builds no engines for %.100s.",
       manifest.provision_provider.c_str());
}

std::string device_text(const ProviderRule &provider, const Manifest &manifest) {
  if (!provider.on_gpu) return processor();
  const Gpu gpu = require_gpu(manifest.device);
  return gpu.name + ", driver " + gpu.driver + ", CUDA " + std::to_string(gpu.cuda);
}

BuiltEngines read_built(const char *path, const Manifest &manifest, bool unproven) {
  const ProviderRule &provider = provision_provider(manifest);
  const Folder folder = open_folder(path);
  const std::vector<uint8_t> text = read_file(folder, kMark, kMostMarkBytes);
  const JsonDocument document(kMark, reinterpret_cast<const char *>(text.data()), text.size());
  const Json mark = document.root();
  if (mark.at("schema_version").integer() != kMarkSchema) {
    fail(LE_INTEGRITY, "%s is of another version: build the engines again.", kMark);
  }
  if (mark.at("release").text() != hex(manifest.sha256) ||
      mark.at("provider").text() != provider.name) {
    fail(LE_INTEGRITY, "%.200s holds engines of another release: build this one's.", path);
  }
  const std::string built_on = mark.at("device").text();
  const std::string here = quoted(device_text(provider, manifest));
  if ('"' + built_on + '"' != here) {
    fail(LE_WRONG_DEVICE, "The engines were built on %.150s, and this is %.150s: build them again.",
         built_on.c_str(), here.substr(1, here.size() - 2).c_str());
  }
  if (!mark.at("proven").boolean() && !unproven) {
    fail(LE_UNPROVEN, "The golden vectors have not come out right on the engines in %.200s.", path);
  }
  const Json engines = mark.at("engines");
  const bool direct = is_direct(provider);
  BuiltEngines built;
  if (manifest.sizes.plans()) {
    built.planner = read_engine(folder, engines, direct ? kPlannerEngine : kBuiltPlanner);
  }
  built.refiner = read_engine(folder, engines, direct ? kRefinerEngine : kBuiltRefiner);
  if (direct) {
    const std::vector<uint8_t> library = read_engine(folder, engines, kBuiltLibrary);
    built.library = MemoryFile("libra_trt");
    built.library.append(library.data(), library.size());
    built.library.seal();
    built.library_sha256 = sha256(reinterpret_cast<const char *>(library.data()), library.size());
  }
  return built;
}

void write_mark(const char *path, const Manifest &manifest) {
  const ProviderRule &provider = provision_provider(manifest);
  const Folder folder = open_folder(path);
  std::string engines;
  std::vector<const char *> names = {kBuiltRefiner};
  if (is_direct(provider)) names = {kRefinerEngine, kBuiltLibrary};
  if (manifest.sizes.plans()) {
    names.push_back(is_direct(provider) ? kPlannerEngine : kBuiltPlanner);
  }
  for (const char *name : names) {
    engines += engines.empty() ? "" : ",";
    engines += "\n  \"" + std::string(name) + "\": \"" +
               sha256_of(read_file(folder, name, kMostEngineBytes)) + '"';
  }
  const std::string text = "{\n \"device\": " + quoted(device_text(provider, manifest)) +
                           ",\n \"engines\": {" + engines + "\n },\n \"proven\": false" +
                           ",\n \"provider\": \"" + provider.name + "\",\n \"release\": \"" +
                           hex(manifest.sha256) +
                           "\",\n \"schema_version\": " + std::to_string(kMarkSchema) + "\n}\n";
  const std::string to = std::string(path) + "/" + kMark;
  const int file = open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) fail(LE_IO, "%.200s cannot be made: %s.", to.c_str(), std::strerror(errno));
  const bool whole = write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (close(file) != 0 || !whole) fail(LE_IO, "%.200s cannot be written.", to.c_str());
}

}  // namespace le
