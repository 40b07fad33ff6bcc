// The agent's commands, by name.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "agent/answer.h"

namespace agent {

constexpr uint64_t kMostHealthTimeoutS = 86400;

// Of the command line; each command takes those that concern it.
struct Options {
  std::string root = "/opt/libra", source, slot;
  bool json = false, allow_unsigned = false;
  uint64_t health_timeout_s = 300;
};

using Command = std::function<Object(const Options &options)>;

const std::map<std::string, Command> &commands();

}  // namespace agent
