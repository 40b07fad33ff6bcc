#include "agent/commands.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "agent/install.h"
#include "agent/robot.h"
#include "agent/self_test.h"
#include "agent/source.h"
#include "agent/trust.h"
#include "libra_edge.h"
#include "release/manifest_table.h"

namespace agent {
namespace {

constexpr auto kHookLimit = std::chrono::seconds(120);
constexpr auto kWatchPause = std::chrono::seconds(1);

void tell_hook(const Robot &robot, const std::string &slot) {
  setenv("LIBRA_ROOT", robot.root().c_str(), 1);
  setenv("LIBRA_SLOT", slot.c_str(), 1);
}

// Runs `hooks/NAME`, if the robot's owner put one there; whether it agreed.
bool hook(const Robot &robot, const std::string &name, const std::string &slot) {
  const std::string path = robot.root() + "/hooks/" + name;
  if (access(path.c_str(), F_OK) != 0) return true;
  const pid_t pid = fork();
  if (pid < 0) fail_system(name + " cannot be run");
  if (pid == 0) {
    tell_hook(robot, slot);
    // The agent's answer is the only thing on standard output.
    dup2(STDERR_FILENO, STDOUT_FILENO);
    const int nothing = open("/dev/null", O_RDONLY);
    if (nothing >= 0) dup2(nothing, STDIN_FILENO);
    setpgid(0, 0);
    execl(path.c_str(), name.c_str(), slot.c_str(), static_cast<char *>(nullptr));
    _exit(127);
  }
  const auto until = std::chrono::steady_clock::now() + kHookLimit;
  int status = 0;
  while (true) {
    const pid_t ended = waitpid(pid, &status, WNOHANG);
    if (ended == pid) return WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (ended < 0 && errno != EINTR) return false;
    if (std::chrono::steady_clock::now() >= until) {
      kill(-pid, SIGKILL);
      kill(pid, SIGKILL);
      while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
      }
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

void must_agree(const Robot &robot, const std::string &name, const std::string &slot) {
  if (hook(robot, name, slot)) return;
  refuse(Exit::kRefused, "hook-refused", "hooks/" + name + " says no.",
         "Bring the robot to rest and run it again; what runs there is untouched.");
}

Object told(const Slot &slot) {
  Object answer;
  answer.text("state", slot.state).text("manifest_sha256", slot.manifest_sha256);
  answer.text("release", slot.release).text("recipe", slot.recipe).text("target", slot.target);
  if (slot.key_id.empty()) {
    answer.nothing("key_id");
  } else {
    answer.text("key_id", slot.key_id);
  }
  answer.number("security_epoch", slot.security_epoch);
  return answer.number("installed_at_unix_s", slot.installed_at_unix_s);
}

Object status(const Options &options) {
  Robot robot(options.root, false);
  Object answer, slots, epochs;
  const std::string active = robot.active();
  for (const char *name : kSlots) {
    const auto slot = robot.state().slots.find(name);
    if (slot == robot.state().slots.end()) {
      slots.nothing(name);
    } else {
      slots.json(name, told(slot->second).end());
    }
  }
  for (const auto &[key, epoch] : robot.state().epochs) epochs.number(key.c_str(), epoch);
  answer.text("root", robot.root());
  active.empty() ? answer.nothing("active") : answer.text("active", active);
  answer.json("slots", slots.end());
  const std::string &previous = robot.state().previous;
  previous.empty() ? answer.nothing("previous") : answer.text("previous", previous);
  robot.state().pending.empty() ? answer.nothing("health_deadline_unix_s")
                                : answer.number("health_deadline_unix_s", robot.state().deadline);
  answer.text("agent_version", LE_VERSION).number("abi_version", LE_ABI_VERSION);
  answer.text("architecture", le::own_arch()).number("free_bytes", free_bytes(robot.folder()));
  answer.json("epochs", epochs.end());
  tell_trust(robot, &answer);
  return answer;
}

Object missing_members(const Options &options) {
  const Robot robot(options.root, false);
  std::string text(le::kMostManifestBytes + 1, '\0');
  text.resize(read_some(STDIN_FILENO, reinterpret_cast<uint8_t *>(text.data()), text.size(),
                        "standard input"));
  return missing(robot, text);
}

Object install_release(const Options &options) {
  Robot robot(options.root, true);
  return install(&robot, open_source(options.source).get(), options.allow_unsigned);
}

Object verify(const Options &options) {
  Robot robot(options.root, true);
  const std::string slot = robot.filled(options.slot, true);
  verify_slot(robot, slot);
  if (robot.state().slots[slot].state == "installed") {
    robot.state().slots[slot].state = "verified";
    robot.save();
  }
  Object answer;
  return answer.text("slot", slot);
}

Object test(const Options &options) {
  Robot robot(options.root, true);
  const std::string slot = robot.filled(options.slot, true);
  Object answer = self_test(robot, slot);
  return answer.text("slot", slot);
}

// What its self-test says of a slot, every byte of which is right.
Object require_tested(Robot *robot, const std::string &slot) {
  try {
    verify_slot(*robot, slot);
    return self_test(*robot, slot);
  } catch (...) {
    // What runs is not touched; what does not pass is never tried.
    if (slot != robot->active()) {
      robot->state().slots[slot].state = "bad";
      robot->save();
    }
    throw;
  }
}

// Its engines are the graphs that lie in it: whatever runs on another provider than the CPU was
// refused when it was installed. So there is nothing to build, and all to be shown.
Object provision(const Options &options) {
  Robot robot(options.root, true);
  const std::string slot = robot.filled(options.slot, false);
  Object answer = require_tested(&robot, slot);
  if (robot.state().slots[slot].state == "installed") {
    robot.state().slots[slot].state = "verified";
    robot.save();
  }
  return answer.text("slot", slot).text("provider", "CPUExecutionProvider").number("built", 0);
}

Object activate(const Options &options) {
  Robot robot(options.root, true);
  State &state = robot.state();
  const std::string slot = robot.filled(options.slot, false), before = robot.active();
  Object answer;
  if (slot == before) return answer.text("slot", slot).text("already", "active");
  if (state.slots[slot].state == "bad") {
    refuse(Exit::kRefused, "slot-bad", "Slot " + slot + " was found to be bad.",
           "Install the release again, or another one.");
  }
  require_tested(&robot, slot);
  must_agree(robot, "pre-activate", slot);
  state.slots[slot].state = "active";
  state.previous = before;
  state.pending = slot;
  state.pending_since = now_unix_s();
  state.deadline = state.pending_since + options.health_timeout_s;
  robot.save();
  robot.point(slot);
  if (!hook(robot, "post-activate", slot)) {
    robot.fall_back();
    hook(robot, "post-activate", robot.active());
    refuse(Exit::kRefused, "hook-refused",
           "hooks/post-activate says no: what ran before runs again.",
           "See the log of the robot's service.");
  }
  return answer.text("slot", slot).number("health_deadline_unix_s", state.deadline);
}

std::string require_active(const Robot &robot) {
  const std::string slot = robot.active();
  if (slot.empty()) {
    refuse(Exit::kRefused, "nothing-active", "Nothing is active.", "Activate a release first.");
  }
  return slot;
}

Object mark_good(const Options &options) {
  Robot robot(options.root, true);
  const std::string slot = require_active(robot);
  robot.state().slots[slot].state = "good";
  robot.settle();
  robot.save();
  Object answer;
  return answer.text("slot", slot);
}

Object mark_bad(const Options &options) {
  Robot robot(options.root, true);
  const std::string bad = require_active(robot);
  if (robot.state().pending != bad && robot.state().previous.empty()) {
    // Said twice, it must not take away what the first time brought back.
    refuse(Exit::kRefused, "no-previous",
           "Slot " + bad + " is on no trial, and there is none to go back to.",
           "Install and activate the release that the robot is to run.");
  }
  robot.fall_back();
  hook(robot, "post-activate", robot.active());
  Object answer;
  answer.text("slot", bad);
  const std::string now = robot.active();
  return now.empty() ? answer.nothing("active") : answer.text("active", now);
}

Object rollback(const Options &options) {
  Robot robot(options.root, true);
  State &state = robot.state();
  const std::string now = robot.active(), before = state.previous;
  const auto slot = state.slots.find(before);
  if (slot == state.slots.end() || slot->second.state == "bad") {
    refuse(Exit::kRefused, "no-previous", "There is no slot to go back to.",
           "Install and activate the release that the robot is to run.");
  }
  verify_slot(robot, before);
  must_agree(robot, "pre-activate", before);
  robot.point(before);
  state.previous = now;
  robot.settle();
  robot.save();
  hook(robot, "post-activate", before);
  Object answer;
  return answer.text("slot", before);
}

// For ever: whatever opens the robot's folder ends a trial that is over.
Object watch(const Options &options) {
  std::string before, after;
  while (true) {
    try {
      {
        const Robot robot(options.root, false);
        after = robot.active();
      }
      if (!before.empty() && before != after) {
        const Robot robot(options.root, true);
        hook(robot, "post-activate", after);
      }
      before = after;
    } catch (const Refusal &refusal) {
      // Another command at work, or a disk that recovers: it is looked at again.
      std::fprintf(stderr, "watch: %s\n", refusal.fact.c_str());
    }
    std::this_thread::sleep_for(kWatchPause);
  }
}

}  // namespace

const std::map<std::string, Command> &commands() {
  static const std::map<std::string, Command> all = {
      {"status", status},
      {"missing", missing_members},
      {"install", install_release},
      {"verify", verify},
      {"provision", provision},
      {"self-test", test},
      {"activate", activate},
      {"mark-good", mark_good},
      {"mark-bad", mark_bad},
      {"rollback", rollback},
      {"watch", watch},
  };
  return all;
}

}  // namespace agent
