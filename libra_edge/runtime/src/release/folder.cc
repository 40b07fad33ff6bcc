#include "release/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "error.h"
#include "release/manifest_table.h"

namespace le {
namespace {

// O_NONBLOCK keeps a FIFO in a member's place from stopping us; it is refused afterwards.
constexpr int kFile = O_NONBLOCK | O_NOFOLLOW;
constexpr int kFolder = O_DIRECTORY | O_NOFOLLOW;

bool is_folder(const std::string &name) {
  return std::any_of(std::begin(kFolders), std::end(kFolders),
                     [&](const char *folder) { return name == folder; });
}

// The names in a directory, hidden ones too, but for "." and "..".
std::vector<std::string> names_in(const File &folder) {
  const int copy = openat(folder.descriptor(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *raw = copy < 0 ? nullptr : fdopendir(copy);
  if (raw == nullptr) {
    const int reason = errno;
    if (copy >= 0) close(copy);
    fail(LE_IO, "The release cannot be listed: %s.", std::strerror(reason));
  }
  const std::unique_ptr<DIR, int (*)(DIR *)> listing(raw, closedir);
  std::vector<std::string> names;
  while (const dirent *entry = readdir(listing.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

File::File(int folder, const char *path, const char *name, int flags)
    : name_(name), descriptor_(openat(folder, path, O_RDONLY | O_CLOEXEC | flags)) {
  if (descriptor_ >= 0) return;
  if (errno == ENOENT) fail(LE_INTEGRITY, "%s is missing.", name);
  if (errno == ELOOP) fail(LE_INTEGRITY, "%s is a symbolic link, which no release holds.", name);
  if (errno == ENOTDIR) fail(LE_INTEGRITY, "%s lies in no directory of the release.", name);
  if (errno == ENXIO) fail(LE_INTEGRITY, "%s is not a regular file.", name);
  fail(LE_IO, "%s cannot be opened: %s.", name, std::strerror(errno));
}

File::~File() {
  close(descriptor_);
}

uint64_t File::size() const {
  struct stat status;
  if (fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
    fail(LE_INTEGRITY, "%s is not a regular file.", name_);
  }
  return static_cast<uint64_t>(status.st_size);
}

size_t File::read(uint8_t *to, size_t size) const {
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

Folder::Folder(const std::string &path)
    : root_(AT_FDCWD, path.c_str(), "The release", O_DIRECTORY) {}

File Folder::open(const char *name) const {
  const char *slash = std::strchr(name, '/');
  if (slash == nullptr) return {root_.descriptor(), name, name, kFile};
  const std::string folder(name, slash);
  const File inner(root_.descriptor(), folder.c_str(), name, kFolder);
  return {inner.descriptor(), slash + 1, name, kFile};
}

void Folder::require_only(const std::vector<Member> &members) const {
  const auto check = [&](const std::string &name) {
    const auto is_it = [&](const Member &member) { return name == member.name; };
    if (name == "manifest.json" || std::any_of(members.begin(), members.end(), is_it)) return;
    if (name == kSignatureFile) {
      // Beside what the manifest names: it is over the manifest.
      if (open(kSignatureFile).size() <= kMostSignatureBytes) return;
      fail(LE_INTEGRITY, "%s is too large to be a signature.", kSignatureFile);
    }
    fail(LE_INTEGRITY, "The release holds %.200s, which its manifest does not name.", name.c_str());
  };
  for (const std::string &name : names_in(root_)) {
    if (!is_folder(name)) {
      check(name);
      continue;
    }
    const File inner(root_.descriptor(), name.c_str(), name.c_str(), kFolder);
    for (const std::string &file : names_in(inner)) check(name + "/" + file);
  }
}

}  // namespace le
