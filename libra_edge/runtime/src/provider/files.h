// A provider's libraries: loaded from the very bytes that were hashed.
#pragma once

#include <string>
#include <vector>

#include "release/release.h"

namespace le {

// A folder that holds nothing but links to files in memory, by the names that libraries ask each
// other for. It is gone with the object; what was loaded from it stays.
class LinkedFiles {
 public:
  // `folder` must not be there yet; empty: a new one is made. Throws LE_IO.
  LinkedFiles(const std::vector<const ProviderFile *> &files, std::string folder);
  ~LinkedFiles();
  LinkedFiles(const LinkedFiles &) = delete;
  LinkedFiles &operator=(const LinkedFiles &) = delete;

  // Loads all of them in their order. Throws LE_NO_PROVIDER where one is no whole library for this
  // machine, or lacks another one.
  void load(const std::vector<const ProviderFile *> &files) const;
  // The path of the plug-in, the last of them.
  const std::string &plugin() const { return paths_.back(); }
  const std::string &folder() const { return folder_; }

 private:
  void clear() const;

  std::string folder_;
  std::vector<std::string> paths_;
  std::vector<int> descriptors_;  // of its own: the release may be gone first
};

}  // namespace le
