// A file that lies in memory and that nobody can change any more once it is sealed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace le {

class MemoryFile {
 public:
  MemoryFile() = default;
  // Throws LE_NO_MEMORY or LE_IO. `name` shows up in /proc alone.
  explicit MemoryFile(const char *name);
  ~MemoryFile();
  MemoryFile(MemoryFile &&other) noexcept;
  MemoryFile &operator=(MemoryFile &&other) noexcept;

  void append(const uint8_t *data, size_t size);
  void seal();
  // Reads from `offset` on; false where the file ends before `size` bytes.
  bool read(uint64_t offset, void *to, size_t size) const;
  uint64_t size() const { return size_; }
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

}  // namespace le
