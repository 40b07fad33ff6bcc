// The directory of a release: regular files of fixed names, and nothing else.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "release/manifest.h"

namespace le {

// An open file or directory. Throws where it is not there, a symbolic link, or cannot be read.
class File {
 public:
  // `name` is for messages; it must stay.
  File(int folder, const char *path, const char *name, int flags);
  ~File();
  File(const File &) = delete;
  File &operator=(const File &) = delete;

  // Of a regular file; throws LE_INTEGRITY for anything else.
  uint64_t size() const;
  // Reads up to `size` bytes, fewer only at the end of the file.
  size_t read(uint8_t *to, size_t size) const;
  int descriptor() const { return descriptor_; }

 private:
  const char *name_;
  int descriptor_;
};

class Folder {
 public:
  explicit Folder(const std::string &path);

  // A member, by the name it has in the manifest. Symbolic links are not followed.
  File open(const char *name) const;
  // Throws LE_INTEGRITY where the directory holds anything but these, the manifest and a signature.
  void require_only(const std::vector<Member> &members) const;

 private:
  File root_;
};

}  // namespace le
