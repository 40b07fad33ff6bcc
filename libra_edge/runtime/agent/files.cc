#include "agent/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include "agent/answer.h"

namespace agent {
namespace {

constexpr size_t kPieceBytes = 1 << 20;

template <typename Call>
auto again(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

}  // namespace

void fail_system(const std::string &what) {
  const int reason = errno;
  const bool full = reason == ENOSPC || reason == EDQUOT;
  refuse(Exit::kFailed, full ? "no-space" : "system", what + ": " + std::strerror(reason) + ".",
         full ? "Make room on the robot's disk and run it again; what runs there is untouched."
              : "Run it again; what runs on the robot is untouched.");
}

Handle::~Handle() {
  if (descriptor_ >= 0) close(descriptor_);
}

Handle::Handle(Handle &&other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

Handle &Handle::operator=(Handle &&other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

Handle open_folder(int at, const std::string &name) {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  Handle folder(again([&] { return openat(at, name.c_str(), kFlags); }));
  if (!folder) fail_system(name + " cannot be opened");
  return folder;
}

Handle make_folder(int at, const std::string &name) {
  if (again([&] { return mkdirat(at, name.c_str(), 0755); }) != 0 && errno != EEXIST) {
    fail_system(name + " cannot be made");
  }
  return open_folder(at, name);
}

Handle create_file(int at, const std::string &name, mode_t mode) {
  // A file of its own: what lies there under this name may be another's by a hard link.
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  remove_all(at, name);
  Handle file(again([&] { return openat(at, name.c_str(), kFlags, mode); }));
  if (!file) fail_system(name + " cannot be written");
  return file;
}

Handle open_file(int at, const std::string &name) {
  constexpr int kFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
  Handle file(again([&] { return openat(at, name.c_str(), kFlags); }));
  if (!file && errno != ENOENT) fail_system(name + " cannot be opened");
  struct stat status;
  if (file && (fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode))) {
    refuse(Exit::kRefused, "not-a-file", name + " is not a regular file.", "Take it away.");
  }
  return file;
}

bool exists(int at, const std::string &name) {
  struct stat status;
  if (fstatat(at, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) return true;
  if (errno != ENOENT) fail_system(name + " cannot be looked at");
  return false;
}

uint64_t size_of(const Handle &file, const std::string &what) {
  struct stat status;
  if (fstat(file.get(), &status) != 0) fail_system(what + " cannot be looked at");
  return static_cast<uint64_t>(status.st_size);
}

size_t read_some(int descriptor, uint8_t *to, size_t size, const std::string &what) {
  size_t done = 0;
  while (done < size) {
    const ssize_t got = again([&] { return read(descriptor, to + done, size - done); });
    if (got < 0) fail_system(what + " cannot be read");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

void write_all(const Handle &file, const void *data, size_t size, const std::string &what) {
  const auto *bytes = static_cast<const uint8_t *>(data);
  for (size_t done = 0; done < size;) {
    const ssize_t got = again([&] { return write(file.get(), bytes + done, size - done); });
    if (got < 0) fail_system(what + " cannot be written");
    done += static_cast<size_t>(got);
  }
}

void sync(const Handle &handle, const std::string &what) {
  if (again([&] { return fsync(handle.get()); }) != 0)
    fail_system(what + " does not reach the disk");
}

std::string read_text(int at, const std::string &name, size_t most) {
  const Handle file = open_file(at, name);
  if (!file) return {};
  if (size_of(file, name) > most) {
    refuse(Exit::kRefused, "too-large", name + " is larger than any such file.", "Take it away.");
  }
  std::string text(most, '\0');
  text.resize(read_some(file.get(), reinterpret_cast<uint8_t *>(text.data()), most, name));
  return text;
}

void replace_file(int at, const std::string &name, const std::string &content) {
  const std::string fresh = name + ".new";
  const Handle file = create_file(at, fresh, 0644);
  write_all(file, content.data(), content.size(), fresh);
  sync(file, fresh);
  rename_in(at, fresh, name);
}

void rename_in(int at, const std::string &from, const std::string &to) {
  if (again([&] { return renameat(at, from.c_str(), at, to.c_str()); }) != 0) {
    fail_system(from + " cannot be put in its place");
  }
  if (again([&] { return fsync(at); }) != 0) fail_system(to + " does not reach the disk");
}

void remove_all(int at, const std::string &name) {
  if (again([&] { return unlinkat(at, name.c_str(), 0); }) == 0 || errno == ENOENT) return;
  if (errno != EISDIR && errno != EPERM) fail_system(name + " cannot be taken away");
  {
    const Handle folder = open_folder(at, name);
    for (const std::string &inner : names_in(folder.get())) remove_all(folder.get(), inner);
  }
  if (again([&] { return unlinkat(at, name.c_str(), AT_REMOVEDIR); }) != 0) {
    fail_system(name + " cannot be taken away");
  }
}

std::vector<std::string> names_in(int folder) {
  const int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *raw = copy < 0 ? nullptr : fdopendir(copy);
  if (raw == nullptr) {
    if (copy >= 0) close(copy);
    fail_system("a folder cannot be listed");
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

le::Digest hash_of(int descriptor, const std::string &what) {
  std::vector<uint8_t> buffer(kPieceBytes);
  le::Sha256 hash;
  while (const size_t got = read_some(descriptor, buffer.data(), buffer.size(), what)) {
    hash.update(buffer.data(), got);
  }
  return hash.finish();
}

uint64_t free_bytes(int folder) {
  struct statvfs room;
  if (fstatvfs(folder, &room) != 0) fail_system("the robot's disk cannot be looked at");
  return static_cast<uint64_t>(room.f_bavail) * room.f_frsize;
}

std::string hex(const le::Digest &digest) {
  std::string text;
  for (const uint8_t byte : digest) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", byte);
    text += two;
  }
  return text;
}

}  // namespace agent
