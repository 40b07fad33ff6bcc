// A release into the slot that does not run: received, copied, read back, noted.
#pragma once

#include <string>

#include "agent/answer.h"
#include "agent/robot.h"
#include "agent/source.h"

namespace agent {

// Installs what the source holds; answers `slot`, or `already`.
Object install(Robot *robot, Source *source, bool allow_unsigned);

// What neither the slots nor an earlier try hold of the release whose manifest this is.
Object missing(const Robot &robot, const std::string &manifest);

// Reads every member of a slot and compares it with the manifest.
void verify_slot(const Robot &robot, const std::string &slot);

// The manifest of a slot, as this machine can run it.
le::Manifest manifest_of(const Robot &robot, const std::string &slot);

}  // namespace agent
