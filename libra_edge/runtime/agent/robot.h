// The robot's folder: two slots, `current`, and what is remembered of them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "agent/files.h"

namespace agent {

constexpr std::array<const char *, 2> kSlots = {"a", "b"};
constexpr const char *kCurrent = "current";
constexpr const char *kStateFile = "state.json";

// What is remembered of a slot. state: installed, verified, active (until it is marked), good, bad.
struct Slot {
  std::string state, manifest_sha256, release, recipe, target, key_id;  // key_id: "" for none
  uint64_t security_epoch = 0, installed_at_unix_s = 0;
};

struct State {
  std::map<std::string, Slot> slots;
  std::string previous;   // the slot that a rollback goes to; "" for none
  std::string pending;    // the slot that is being tried; "" for none
  uint64_t deadline = 0;  // unix time when it has to be good
  uint64_t pending_since = 0;
  std::map<std::string, uint64_t> epochs;  // the highest seen, per key
};

class Robot {
 public:
  // Opens the robot's folder, which is made where it is not there. `lock`: nobody else works on it
  // meanwhile, and what an earlier command left half done is ended; refused as `busy`.
  Robot(const std::string &root, bool lock);

  const std::string &root() const { return path_; }
  int folder() const { return root_.get(); }
  int slots() const { return slots_.get(); }
  // Open in a child, it would keep others out after the agent's own end.
  int lock() const { return lock_.get(); }
  State &state() { return state_; }
  const State &state() const { return state_; }
  void save() const;

  // Where `current` points; "" where nothing is active.
  std::string active() const;
  std::string inactive() const { return active() == "a" ? "b" : "a"; }
  // The slot that a word of the command line means: a, b, or "" for the inactive one. It must be
  // filled.
  std::string filled(const std::string &word, bool otherwise_active) const;
  std::string slot_path(const std::string &slot) const { return path_ + "/slots/" + slot; }

  // Points `current` to a slot, or to nothing for "", in one step.
  void point(const std::string &slot);
  // Ends a try: the active slot is bad, and the one before it runs again.
  void fall_back();
  // Nothing is being tried any more; not saved.
  void settle();

 private:
  void load();
  void recover();

  std::string path_;
  Handle root_, slots_, lock_;
  State state_;
};

// What a manifest says of itself, for people to read; empty fields where it cannot be read.
Slot described(int slots, const std::string &slot);

uint64_t now_unix_s();

}  // namespace agent
