// Who may send releases to this robot.
#pragma once

#include <cstdint>
#include <string>

#include "agent/answer.h"
#include "agent/robot.h"

namespace agent {

struct Signed {
  std::string key_id;  // "" for none
  uint64_t security_epoch = 0;
};

// Refuses a release that this robot does not trust.
Signed require_signed(const Robot &robot, const std::string &manifest, const std::string &signature,
                      bool allow_unsigned);

// Remembers the highest epoch of each key; not saved.
void note_epoch(Robot *robot, const Signed &by);

// The robot's trust file, in words for `status`.
void tell_trust(const Robot &robot, Object *answer);

}  // namespace agent
