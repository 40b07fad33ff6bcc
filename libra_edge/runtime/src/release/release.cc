#include "release/release.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "error.h"
#include "release/manifest_table.h"

namespace le {
namespace {

constexpr size_t kReadBytes = 1 << 20;

class File {
 public:
  File(const std::string &directory, const char *name) : name_(name) {
    // O_NONBLOCK keeps a FIFO in a member's place from stopping us; it is refused below.
    const std::string path = directory + "/" + name;
    descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0 && (errno == ENOENT || errno == ENOTDIR)) {
      fail(LE_INTEGRITY, "%s is missing.", name);
    }
    if (descriptor_ < 0) fail(LE_IO, "%s cannot be opened: %s.", name, std::strerror(errno));
  }
  ~File() { close(descriptor_); }
  File(const File &) = delete;
  File &operator=(const File &) = delete;

  uint64_t size() const {
    struct stat status;
    if (fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
      fail(LE_INTEGRITY, "%s is not a regular file.", name_);
    }
    return static_cast<uint64_t>(status.st_size);
  }

  // Reads up to `size` bytes, fewer only at the end of the file.
  size_t read(uint8_t *to, size_t size) const {
    size_t done = 0;
    while (done < size) {
      const ssize_t got = ::read(descriptor_, to + done, size - done);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail(LE_IO, "%s cannot be read: %s.", name_, std::strerror(errno));
      if (got == 0) break;
      done += static_cast<size_t>(got);
    }
    return done;
  }

 private:
  const char *name_;
  int descriptor_;
};

std::string resolve(const char *directory) {
  char resolved[PATH_MAX];
  if (realpath(directory, resolved) == nullptr) {
    fail(LE_INVALID_ARGUMENT, "The release %s cannot be opened: %s.", directory,
         std::strerror(errno));
  }
  return resolved;
}

std::vector<uint8_t> read_manifest(const std::string &directory) {
  const File file(directory, "manifest.json");
  const uint64_t size = file.size();
  if (size > kMostManifestBytes) {
    fail(LE_MALFORMED, "manifest.json has %llu bytes; at most %zu are read.",
         static_cast<unsigned long long>(size), kMostManifestBytes);
  }
  std::vector<uint8_t> content(size);
  content.resize(file.read(content.data(), content.size()));
  return content;
}

// Compares a member with the manifest; keeps its bytes where `content` is given.
void verify_member(const std::string &directory, const Member &member,
                   std::vector<uint8_t> *content) {
  const File file(directory, member.name);
  const uint64_t size = file.size();
  if (size != member.size_bytes) {
    fail(LE_INTEGRITY, "%s has %llu bytes; the manifest says %llu.", member.name,
         static_cast<unsigned long long>(size), static_cast<unsigned long long>(member.size_bytes));
  }
  std::vector<uint8_t> buffer(content != nullptr ? size : std::min<uint64_t>(size, kReadBytes));
  Sha256 hash;
  for (uint64_t done = 0; done < size;) {
    const size_t got = file.read(buffer.data(), std::min<uint64_t>(buffer.size(), size - done));
    if (got == 0) fail(LE_INTEGRITY, "%s became shorter while it was read.", member.name);
    hash.update(buffer.data(), got);
    done += got;
  }
  if (hash.finish() != member.sha256) {
    fail(LE_INTEGRITY, "%s is not the file the manifest names: its SHA-256 differs.", member.name);
  }
  if (content != nullptr) *content = std::move(buffer);
}

}  // namespace

Release read_release(const char *directory) {
  // Resolved once: a symbolic link that is switched meanwhile cannot mix two releases.
  const std::string root = resolve(directory);
  const std::vector<uint8_t> text = read_manifest(root);
  Release release;
  release.manifest = parse_manifest(reinterpret_cast<const char *>(text.data()), text.size());
  release.manifest_sha256 = sha256(text.data(), text.size());
  for (const Member &member : release.manifest.members) {
    const bool planner = std::strcmp(member.name, kPlannerMember) == 0;
    const bool refiner = std::strcmp(member.name, kRefinerMember) == 0;
    verify_member(root, member, planner ? &release.planner : refiner ? &release.refiner : nullptr);
  }
  release.onnxruntime_path = root + "/" + kOnnxRuntimeMember;
  return release;
}

}  // namespace le
