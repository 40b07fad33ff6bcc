// Files that are there whole or not at all, also after a kill or a loss of power.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "release/sha256.h"

namespace agent {

// An open file or folder.
class Handle {
 public:
  Handle() = default;
  explicit Handle(int descriptor) : descriptor_(descriptor) {}
  ~Handle();
  Handle(Handle &&other) noexcept;
  Handle &operator=(Handle &&other) noexcept;

  int get() const { return descriptor_; }
  explicit operator bool() const { return descriptor_ >= 0; }

 private:
  int descriptor_ = -1;
};

// Every function throws a Refusal that names `what` and the system's reason.

// A folder that is no symbolic link.
Handle open_folder(int at, const std::string &name);
// The same, made first where it is not there.
Handle make_folder(int at, const std::string &name);
// An empty file for writing, in the place of what was there.
Handle create_file(int at, const std::string &name, mode_t mode);
// A regular file for reading, no symbolic link; none where it is not there.
Handle open_file(int at, const std::string &name);
bool exists(int at, const std::string &name);
uint64_t size_of(const Handle &file, const std::string &what);

// Fewer bytes only at the end of the file.
size_t read_some(int descriptor, uint8_t *to, size_t size, const std::string &what);
void write_all(const Handle &file, const void *data, size_t size, const std::string &what);
void sync(const Handle &handle, const std::string &what);
// All of a small file; nothing where it is not there.
std::string read_text(int at, const std::string &name, size_t most);
// Puts a file in the place of another, in one step that lasts.
void replace_file(int at, const std::string &name, const std::string &content);
// Renames within one folder, so that it lasts.
void rename_in(int at, const std::string &from, const std::string &to);
// A file, or a folder and all below; nothing happens where it is not there.
void remove_all(int at, const std::string &name);
std::vector<std::string> names_in(int folder);
// Of everything that can be read; `most` bounds it.
le::Digest hash_of(int descriptor, const std::string &what);

uint64_t free_bytes(int folder);
std::string hex(const le::Digest &digest);
[[noreturn]] void fail_system(const std::string &what);

}  // namespace agent
