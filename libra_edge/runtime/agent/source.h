// Where a release comes from: a folder, a packed file, or a stream from another machine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "agent/files.h"
#include "release/manifest.h"

namespace agent {

// Takes a piece of a member.
using Sink = std::function<void(const uint8_t *data, size_t size)>;

class Source {
 public:
  virtual ~Source() = default;
  // The bytes of manifest.json and model.sig; the latter are empty where there is none.
  virtual const std::string &manifest() const = 0;
  virtual const std::string &signature() const = 0;
  // What it will say of every member that it holds, in its own order: `begin` names the member and
  // the offset that its bytes start at, and answers where they go.
  virtual void deliver(const le::Manifest &manifest,
                       const std::function<Sink(const le::Member &member, uint64_t offset)> &begin,
                       const std::function<void(const le::Member &member)> &end) = 0;
};

// `words`: a path, or "-" for standard input.
std::unique_ptr<Source> open_source(const std::string &words);

}  // namespace agent
