#include "engine/library.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "error.h"

namespace le {
namespace {

constexpr size_t kMostTries = 100;
#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
#endif

Elf64_Ehdr read_header(const MemoryFile &file, const char *name, le_status status) {
  Elf64_Ehdr header;
  if (!file.read(0, &header, sizeof header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
      header.e_type != ET_DYN || header.e_machine != kMachine ||
      header.e_phentsize != sizeof(Elf64_Phdr)) {
    fail(status, "%s is not a shared library for this machine.", name);
  }
  return header;
}

// Whether the library's pages are those of the file: what /proc/self/maps says of one of them.
bool is_of(void *library, const MemoryFile &file) {
  link_map *map = nullptr;
  struct stat status;
  if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0 || fstat(file.descriptor(), &status) != 0) {
    return false;
  }
  const auto wanted = reinterpret_cast<uintptr_t>(map->l_ld);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long start, end, inode;
    unsigned major_number, minor_number;
    if (std::sscanf(line.c_str(), "%lx-%lx %*s %*s %x:%x %lu", &start, &end, &major_number,
                    &minor_number, &inode) != 5 ||
        wanted < start || wanted >= end) {
      continue;
    }
    return inode == status.st_ino && makedev(major_number, minor_number) == status.st_dev;
  }
  return false;
}

// The loader takes two files of one name for one, and the number of a descriptor is used again; so
// a name that stands for another library by now is made longer.
void *load(const MemoryFile &file, const char *shown) {
  std::string folder = "/proc/self/fd/";
  for (size_t tries = 0; tries < kMostTries; ++tries, folder += "./") {
    const std::string name = folder + std::to_string(file.descriptor());
    void *library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library == nullptr) fail(LE_ENGINE, "%s cannot be loaded: %s.", shown, dlerror());
    if (is_of(library, file)) return library;
    dlclose(library);
  }
  fail(LE_ENGINE, "%s cannot be loaded: other libraries have taken its names.", shown);
}

}  // namespace

// The loader maps segments without looking at the file's size; to touch a page that is not there
// would kill the process.
void require_library(const MemoryFile &file, const char *name, le_status status) {
  const Elf64_Ehdr header = read_header(file, name, status);
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  if (!file.read(header.e_phoff, segments.data(), segments.size() * sizeof(Elf64_Phdr))) {
    fail(status, "%s is cut short: its table of segments is not in the file.", name);
  }
  bool loads = false;
  for (const Elf64_Phdr &s : segments) {
    loads = loads || s.p_type == PT_LOAD;
    const bool inside = s.p_offset <= file.size() && s.p_filesz <= file.size() - s.p_offset;
    if (s.p_type != PT_NULL && (!inside || (s.p_type == PT_LOAD && s.p_filesz > s.p_memsz))) {
      fail(status, "%s is cut short: a segment of %llu bytes at %llu is not in its %llu bytes.",
           name, static_cast<unsigned long long>(s.p_filesz),
           static_cast<unsigned long long>(s.p_offset),
           static_cast<unsigned long long>(file.size()));
    }
  }
  if (!loads) fail(status, "%s holds nothing to load.", name);
}

void *load_library(const MemoryFile &file, const Digest &sha256, const char *name) {
  static std::mutex lock;
  static auto *const loaded = new std::map<Digest, void *>;  // outlives every user
  const std::scoped_lock locked(lock);
  if (const auto found = loaded->find(sha256); found != loaded->end()) return found->second;
  require_library(file, name, LE_ENGINE);
  return loaded->emplace(sha256, load(file, name)).first->second;
}

}  // namespace le
