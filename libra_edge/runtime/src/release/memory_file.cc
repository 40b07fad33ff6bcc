#include "release/memory_file.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "error.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

namespace le {
namespace {

// Kernels from 6.3 on want to be told that the file holds code; older ones do not know the flag.
int create(const char *name) {
  const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  const int descriptor = memfd_create(name, flags | MFD_EXEC);
  return descriptor >= 0 || errno != EINVAL ? descriptor : memfd_create(name, flags);
}

[[noreturn]] void fail_with_errno(const char *what) {
  fail(errno == ENOMEM || errno == ENOSPC ? LE_NO_MEMORY : LE_IO, "%s: %s.", what,
       std::strerror(errno));
}

}  // namespace

MemoryFile::MemoryFile(const char *name) : descriptor_(create(name)) {
  if (descriptor_ < 0) fail_with_errno("A file in memory cannot be made");
}

MemoryFile::~MemoryFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

MemoryFile::MemoryFile(MemoryFile &&other) noexcept {
  *this = std::move(other);
}

MemoryFile &MemoryFile::operator=(MemoryFile &&other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(size_, other.size_);
  return *this;
}

void MemoryFile::append(const uint8_t *data, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t put = write(descriptor_, data + done, size - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_with_errno("A file in memory cannot be written");
    done += static_cast<size_t>(put);
  }
  size_ += size;
}

void MemoryFile::seal() {
  const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  if (fcntl(descriptor_, F_ADD_SEALS, seals) != 0) fail_with_errno("A file cannot be sealed");
}

bool MemoryFile::read(uint64_t offset, void *to, size_t size) const {
  if (offset > size_ || size > size_ - offset) return false;
  auto *bytes = static_cast<uint8_t *>(to);
  for (size_t done = 0; done < size;) {
    const ssize_t got =
        pread(descriptor_, bytes + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

}  // namespace le
