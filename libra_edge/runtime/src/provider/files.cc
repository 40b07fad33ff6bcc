#include "provider/files.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "engine/library.h"
#include "error.h"

namespace le {
namespace {

std::string make_folder() {
  const char *temporary = std::getenv("TMPDIR");
  std::string name = temporary != nullptr && *temporary == '/' ? temporary : "/tmp";
  name += "/libra-edge-XXXXXX";
  if (mkdtemp(name.data()) == nullptr) {
    fail(LE_IO, "No folder can be made at %.200s for links to a provider's files: %s.",
         name.c_str(), std::strerror(errno));
  }
  return name;
}

}  // namespace

LinkedFiles::LinkedFiles(const std::vector<const ProviderFile *> &files, std::string folder)
    : folder_(folder.empty() ? make_folder() : std::move(folder)) {
  if (mkdir(folder_.c_str(), 0700) != 0 && errno != EEXIST) {
    fail(LE_IO, "%s cannot be made: %s.", folder_.c_str(), std::strerror(errno));
  }
  for (const ProviderFile *file : files) {
    paths_.push_back(folder_ + std::strchr(file->member, '/'));
    descriptors_.push_back(fcntl(file->content.descriptor(), F_DUPFD_CLOEXEC, 0));
    const std::string content = "/proc/self/fd/" + std::to_string(descriptors_.back());
    if (descriptors_.back() >= 0 && symlink(content.c_str(), paths_.back().c_str()) == 0) continue;
    const int reason = errno;
    clear();
    fail(LE_IO, "%s cannot be made: %s.", paths_.back().c_str(), std::strerror(reason));
  }
}

LinkedFiles::~LinkedFiles() {
  clear();
}

void LinkedFiles::clear() const {
  for (const std::string &path : paths_) unlink(path.c_str());
  for (const int descriptor : descriptors_) close(descriptor);
  rmdir(folder_.c_str());
}

void LinkedFiles::load(const std::vector<const ProviderFile *> &files) const {
  for (size_t i = 0; i < files.size(); ++i) {
    require_library(files[i]->content, files[i]->member, LE_NO_PROVIDER);
    if (dlopen(paths_[i].c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) != nullptr) continue;
    fail(LE_NO_PROVIDER, "%s cannot be loaded: %.300s.", files[i]->member, dlerror());
  }
}

}  // namespace le
