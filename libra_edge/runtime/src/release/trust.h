// trust.json: whose signatures a robot takes. An operator writes it; the robot only reads it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "release/p256.h"

namespace le {

struct TrustedKey {
  std::string id;    // sha256 of its SubjectPublicKeyInfo, in hex
  std::string hint;  // sha256 of its PEM, in hex: how a signature names its key
  Point point;
  std::string role;        // "release" or "development"
  std::string expires;     // the last day it is good for, YYYY-MM-DD, UTC
  int64_t expires_unix_s;  // the first second that it is not
};

struct Trust {
  bool allow_unsigned;
  bool allow_development;  // whether a development key's signature is taken
  std::vector<TrustedKey> keys;
};

// Whatever Python's parse_trust takes, and nothing else. Throws LE_MALFORMED.
Trust parse_trust(std::string_view text);

// Throws LE_INTEGRITY where there is no such file, LE_IO where it cannot be read, or what
// parse_trust throws.
Trust read_trust(const std::string &path);

}  // namespace le
