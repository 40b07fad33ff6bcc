#include "agent/robot.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "agent/answer.h"
#include "error.h"
#include "release/json.h"
#include "release/manifest.h"
#include "release/manifest_table.h"

namespace agent {
namespace {

constexpr size_t kMostStateBytes = 1 << 20;
constexpr size_t kMostKeys = 64;

std::string text_at(const le::Json &json, const char *key) {
  return json.has(key) ? json.at(key).text() : "";
}

uint64_t number_at(const le::Json &json, const char *key) {
  return json.has(key) ? json.at(key).integer() : 0;
}

Slot read_slot(const le::Json &json) {
  Slot slot;
  slot.state = json.at("state").text();
  slot.manifest_sha256 = json.at("manifest_sha256").text();
  slot.release = text_at(json, "release");
  slot.recipe = text_at(json, "recipe");
  slot.target = text_at(json, "target");
  slot.key_id = text_at(json, "key_id");
  slot.security_epoch = number_at(json, "security_epoch");
  slot.installed_at_unix_s = number_at(json, "installed_at_unix_s");
  return slot;
}

State read_state(const std::string &text) {
  const le::JsonDocument document(kStateFile, text.data(), text.size());
  const le::Json root = document.root();
  State state;
  const le::Json slots = root.at("slots");
  for (const char *name : kSlots) {
    if (slots.has(name)) state.slots[name] = read_slot(slots.at(name));
  }
  state.previous = text_at(root, "previous");
  state.pending = text_at(root, "pending");
  state.deadline = number_at(root, "deadline");
  state.pending_since = number_at(root, "pending_since_unix_s");
  root.at("epochs").each_member([&](const le::Json &key, const le::Json &epoch) {
    if (state.epochs.size() < kMostKeys) state.epochs[key.text()] = epoch.integer();
  });
  return state;
}

void add_text(Object *to, const char *key, const std::string &value) {
  if (value.empty()) {
    to->nothing(key);
  } else {
    to->text(key, value);
  }
}

}  // namespace

uint64_t now_unix_s() {
  return static_cast<uint64_t>(std::max<time_t>(std::time(nullptr), 0));
}

Robot::Robot(const std::string &root, bool lock) : path_(root) {
  constexpr int kFolder = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  const bool made = mkdir(root.c_str(), 0755) == 0;
  if (!made && errno != EEXIST) fail_system(root + " cannot be made");
  root_ = Handle(open(root.c_str(), kFolder));
  if (!root_) fail_system(root + " cannot be opened");
  if (made) {
    // Or all that is said to be installed would vanish with the folder's name.
    sync(Handle(openat(root_.get(), "..", kFolder)), "the folder of " + root);
  }
  slots_ = make_folder(root_.get(), "slots");
  lock_ = Handle(openat(root_.get(), "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!lock_) fail_system("lock cannot be opened");
  const bool mine = flock(lock_.get(), LOCK_EX | LOCK_NB) == 0;
  if (lock && !mine) {
    refuse(Exit::kBusy, "busy", "Another libra-agent works in " + root + ".", "Wait for its end.");
  }
  load();
  if (mine) recover();
  if (mine && !lock) flock(lock_.get(), LOCK_UN);
}

void Robot::load() {
  const std::string text = read_text(root_.get(), kStateFile, kMostStateBytes);
  if (text.empty()) return;
  try {
    state_ = read_state(text);
  } catch (const le::Error &) {
    // What is in the slots says more than a damaged note of it; `recover` reads them.
    state_ = State();
  }
}

void Robot::save() const {
  Object slots;
  for (const auto &[name, slot] : state_.slots) {
    Object entry;
    entry.text("state", slot.state).text("manifest_sha256", slot.manifest_sha256);
    entry.text("release", slot.release).text("recipe", slot.recipe).text("target", slot.target);
    add_text(&entry, "key_id", slot.key_id);
    entry.number("security_epoch", slot.security_epoch);
    entry.number("installed_at_unix_s", slot.installed_at_unix_s);
    slots.json(name.c_str(), entry.end());
  }
  Object epochs;
  for (const auto &[key, epoch] : state_.epochs) epochs.number(key.c_str(), epoch);
  Object all;
  all.number("schema", 1).json("slots", slots.end());
  add_text(&all, "previous", state_.previous);
  add_text(&all, "pending", state_.pending);
  if (state_.pending.empty()) {
    all.nothing("pending_since_unix_s").nothing("deadline");
  } else {
    all.number("pending_since_unix_s", state_.pending_since).number("deadline", state_.deadline);
  }
  all.json("epochs", epochs.end());
  replace_file(root_.get(), kStateFile, all.end() + "\n");
}

std::string Robot::active() const {
  char target[16];
  const ssize_t size = readlinkat(root_.get(), kCurrent, target, sizeof target);
  if (size < 0) {
    if (errno == ENOENT) return "";
    fail_system("current is no symbolic link");
  }
  const std::string found(target, static_cast<size_t>(size));
  for (const char *slot : kSlots) {
    if (found == std::string("slots/") + slot) return slot;
  }
  refuse(Exit::kFailed, "current-elsewhere", "current points to " + found + ", which is no slot.",
         "Let it point to slots/a or slots/b, whichever holds the policy.");
}

std::string Robot::filled(const std::string &word, bool otherwise_active) const {
  const std::string slot = !word.empty() ? word : otherwise_active ? active() : inactive();
  if (state_.slots.contains(slot)) return slot;
  refuse(Exit::kRefused, "slot-empty",
         slot.empty() ? "Nothing is active." : "Slot " + slot + " is empty.",
         "Install a release first.");
}

void Robot::point(const std::string &slot) {
  if (slot.empty()) {
    remove_all(root_.get(), kCurrent);
    sync(root_, "the robot's folder");
    return;
  }
  const std::string fresh = std::string(kCurrent) + ".new";
  remove_all(root_.get(), fresh);
  if (symlinkat(("slots/" + slot).c_str(), root_.get(), fresh.c_str()) != 0) {
    fail_system(fresh + " cannot be written");
  }
  rename_in(root_.get(), fresh, kCurrent);
}

void Robot::fall_back() {
  const std::string bad = active();
  // Written first: a kill from here on ends in the same place.
  state_.slots[bad].state = "bad";
  save();
  const auto before = state_.slots.find(state_.previous);
  const bool there = before != state_.slots.end() && before->second.state != "bad";
  point(there ? before->first : "");
  state_.previous.clear();
  settle();
  save();
}

void Robot::settle() {
  state_.pending.clear();
  state_.deadline = state_.pending_since = 0;
}

void Robot::recover() {
  const std::string now = active();
  for (const char *slot : kSlots) {
    const std::string name = slot;
    remove_all(slots_.get(), name + ".new");
    remove_all(slots_.get(), name + ".old");
    const bool there = exists(slots_.get(), name);
    if (!there && state_.slots.erase(name) > 0) save();
    if (there && !state_.slots.contains(name)) {
      // A kill between filling a slot and noting it, or a lost note.
      Slot found = described(slots_.get(), name);
      found.state = name == now ? "good" : "installed";
      state_.slots[name] = found;
      save();
    }
  }
  if (!now.empty() && !state_.slots.contains(now)) {
    point("");
  } else if (!now.empty() && state_.slots[now].state == "bad") {
    fall_back();
  } else if (!state_.pending.empty() && state_.pending != now) {
    // A kill before the switch: the slot never ran.
    const auto tried = state_.slots.find(state_.pending);
    if (tried != state_.slots.end()) tried->second.state = "verified";
    state_.previous.clear();
    settle();
    save();
  } else if (!state_.pending.empty() && now_unix_s() >= state_.deadline) {
    fall_back();
  } else if (!now.empty() && state_.previous == now) {
    // A kill within a rollback: what ran before it is where the next one goes.
    const std::string other = now == "a" ? "b" : "a";
    const auto slot = state_.slots.find(other);
    const bool ran = slot != state_.slots.end() &&
                     (slot->second.state == "good" || slot->second.state == "active");
    state_.previous = ran ? other : "";
    save();
  }
}

Slot described(int slots, const std::string &slot) {
  Slot found;
  try {
    const Handle folder = open_folder(slots, slot);
    const std::string text = read_text(folder.get(), "manifest.json", le::kMostManifestBytes);
    const le::Manifest manifest = le::read_manifest(text.data(), text.size());
    found.manifest_sha256 = hex(manifest.sha256);
    found.release = manifest.name;
    found.recipe = manifest.recipe;
    found.target = manifest.target;
  } catch (const le::Error &) {
    found.manifest_sha256 = std::string(64, '0');
  }
  return found;
}

}  // namespace agent
