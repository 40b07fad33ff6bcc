// A release on this very machine: its golden vectors and its latency, before anything runs it.
#pragma once

#include <string>

#include "agent/answer.h"
#include "agent/robot.h"

namespace agent {

// Runs in a process of its own, which a broken release may take down; answers what was measured.
Object self_test(const Robot &robot, const std::string &slot);

}  // namespace agent
