#include "agent/install.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <set>
#include <vector>

#include "agent/trust.h"
#include "error.h"
#include "release/folder.h"
#include "release/manifest_table.h"

namespace agent {
namespace {

constexpr const char *kIncoming = "incoming";
constexpr const char *kManifest = "manifest.json";
constexpr size_t kPieceBytes = 1 << 20;
// Of one installation beside its members: manifest, signature, folders.
constexpr uint64_t kSpareBytes = 4 << 20;

std::string part_name(const le::Member &member) {
  return hex(member.sha256) + ".part";
}

mode_t mode_of(const le::Member &member) {
  return std::string(member.name).starts_with("lib/") ? 0755 : 0644;
}

// A member's place inside a release folder.
struct Place {
  Handle folder;
  std::string file;
};

Place place_of(int release, const le::Member &member, bool make) {
  const std::string name = member.name;
  const size_t slash = name.find('/');
  const std::string folder = slash == std::string::npos ? "." : name.substr(0, slash);
  const std::string file = slash == std::string::npos ? name : name.substr(slash + 1);
  return {make && folder != "." ? make_folder(release, folder) : open_folder(release, folder),
          file};
}

// A member of a slot with these very bytes, open at its start; none where there is none.
Handle held_in_slots(const Robot &robot, const le::Member &wanted) {
  for (const auto &[name, slot] : robot.state().slots) {
    if (slot.manifest_sha256.empty()) continue;
    try {
      const Handle folder = open_folder(robot.slots(), name);
      const std::string text = read_text(folder.get(), kManifest, le::kMostManifestBytes);
      for (const le::Member &member : le::read_manifest(text.data(), text.size()).members) {
        if (member.sha256 != wanted.sha256) continue;
        const Place place = place_of(folder.get(), member, false);
        Handle file = open_file(place.folder.get(), place.file);
        // Its bytes may have decayed since they were written.
        if (!file || hash_of(file.get(), member.name) != wanted.sha256) continue;
        if (lseek(file.get(), 0, SEEK_SET) == 0) return file;
      }
    } catch (const le::Error &) {
    } catch (const Refusal &) {
    }
  }
  return Handle();
}

// A part that arrived earlier, whole and right; one that is whole and wrong is dropped.
Handle held_incoming(int incoming, const le::Member &wanted) {
  Handle file = open_file(incoming, part_name(wanted));
  if (!file || size_of(file, wanted.name) < wanted.size_bytes) return Handle();
  if (hash_of(file.get(), wanted.name) != wanted.sha256) {
    remove_all(incoming, part_name(wanted));
    return Handle();
  }
  return lseek(file.get(), 0, SEEK_SET) == 0 ? std::move(file) : Handle();
}

[[noreturn]] void refuse_changed(const char *name) {
  refuse(Exit::kRefused, "member-changed",
         std::string(name) + " is not the file that the manifest names: its SHA-256 differs.",
         "Fetch the release again.");
}

void require_room(const Robot &robot, uint64_t bytes) {
  const uint64_t free = free_bytes(robot.folder());
  if (bytes + kSpareBytes > free) {
    refuse(Exit::kFailed, "no-space",
           "The release takes " + std::to_string(bytes >> 20) + " MiB; " +
               std::to_string(free >> 20) + " MiB are free.",
           "Make room on the robot's disk and run it again; what runs there is untouched.");
  }
}

uint64_t total_bytes(const le::Manifest &manifest) {
  uint64_t sum = 0;
  for (const le::Member &member : manifest.members) sum += member.size_bytes;
  return sum;
}

void require_proven(const le::Manifest &manifest) {
  const char *why = manifest.random_weights      ? "was never trained: its weights are random"
                    : manifest.verdict == "fail" ? "failed its own parity checks"
                                                 : nullptr;
  if (why != nullptr) {
    refuse(Exit::kRefused, "unproven", std::string("The release ") + why + ".",
           "Compile a trained policy, and install what passes.");
  }
}

// What is there to receive: members go to `incoming`, so that a broken line loses nothing.
void receive(Robot *robot, Source *source, const le::Manifest &manifest) {
  const Handle incoming = make_folder(robot->folder(), kIncoming);
  std::set<std::string> wanted;
  for (const le::Member &member : manifest.members) wanted.insert(part_name(member));
  for (const std::string &name : names_in(incoming.get())) {
    const bool agent = name.starts_with("libra-agent-");
    if (!agent && !wanted.contains(name)) remove_all(incoming.get(), name);
  }
  Handle file;
  const auto begin = [&](const le::Member &member, uint64_t offset) -> Sink {
    const std::string name = part_name(member);
    if (offset == 0) {
      file = create_file(incoming.get(), name, 0644);
    } else {
      file = Handle(openat(incoming.get(), name.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
      if (!file || size_of(file, name) < offset) {
        refuse(Exit::kUsage, "stream-invalid",
               std::string(member.name) + " is sent from byte " + std::to_string(offset) +
                   " on, and what is before it is not here.",
               "Ask what is missing, and send it again.");
      }
      if (ftruncate(file.get(), static_cast<off_t>(offset)) != 0 ||
          lseek(file.get(), 0, SEEK_END) < 0) {
        fail_system(name + " cannot be continued");
      }
    }
    return [&file, name](const uint8_t *data, size_t size) { write_all(file, data, size, name); };
  };
  const auto end = [&](const le::Member &member) {
    sync(file, member.name);
    file = Handle();
    const Handle whole = open_file(incoming.get(), part_name(member));
    if (size_of(whole, member.name) != member.size_bytes ||
        hash_of(whole.get(), member.name) != member.sha256) {
      remove_all(incoming.get(), part_name(member));
      refuse_changed(member.name);
    }
  };
  source->deliver(manifest, begin, end);
}

void copy_member(int from, const Place &to, const le::Member &member) {
  const Handle file = create_file(to.folder.get(), to.file, mode_of(member));
  std::vector<uint8_t> buffer(kPieceBytes);
  le::Sha256 hash;
  while (const size_t got = read_some(from, buffer.data(), buffer.size(), member.name)) {
    hash.update(buffer.data(), got);
    write_all(file, buffer.data(), got, member.name);
  }
  if (hash.finish() != member.sha256) refuse_changed(member.name);
  if (fchmod(file.get(), mode_of(member)) != 0) fail_system(member.name);
  sync(file, member.name);
}

// Every member of the release in a fresh folder, each by its own copy, all on the disk.
void fill(const Robot &robot, const le::Manifest &manifest, const Source &source,
          const std::string &name) {
  const Handle incoming = make_folder(robot.folder(), kIncoming);
  remove_all(robot.slots(), name);
  const Handle release = make_folder(robot.slots(), name);
  for (const le::Member &member : manifest.members) {
    Handle from = held_incoming(incoming.get(), member);
    if (!from) from = held_in_slots(robot, member);
    if (!from) {
      refuse(Exit::kRefused, "member-missing",
             std::string(member.name) + " is neither on the robot nor in what is sent.",
             "Ask what is missing, and send it again.");
    }
    copy_member(from.get(), place_of(release.get(), member, true), member);
  }
  const auto put = [&](const char *file, const std::string &content) {
    const Handle out = create_file(release.get(), file, 0644);
    write_all(out, content.data(), content.size(), file);
    sync(out, file);
  };
  put(kManifest, source.manifest());
  if (!source.signature().empty()) put(le::kSignatureFile, source.signature());
  for (const char *folder : le::kFolders) {
    if (exists(release.get(), folder)) sync(open_folder(release.get(), folder), folder);
  }
  sync(release, name);
}

// What the disk gives back, not what memory remembers of it.
void read_back(int slots, const std::string &name, const le::Manifest &manifest,
               const Source &source) {
  const Handle release = open_folder(slots, name);
  const auto compare = [](const Handle &file, const le::Digest &digest, const char *what) {
    if (!file) refuse_changed(what);
    posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    if (hash_of(file.get(), what) != digest) {
      refuse(Exit::kFailed, "disk-wrong",
             std::string(what) + " reads back as other bytes than were written.",
             "The robot's disk is failing: replace it. What runs there is untouched.");
    }
  };
  for (const le::Member &member : manifest.members) {
    const Place place = place_of(release.get(), member, false);
    compare(open_file(place.folder.get(), place.file), member.sha256, member.name);
  }
  const std::string &text = source.manifest();
  compare(open_file(release.get(), kManifest), le::sha256(text.data(), text.size()), kManifest);
  const std::string &signature = source.signature();
  if (signature.empty()) return;
  compare(open_file(release.get(), le::kSignatureFile),
          le::sha256(signature.data(), signature.size()), le::kSignatureFile);
}

}  // namespace

Object install(Robot *robot, Source *source, bool allow_unsigned) {
  const std::string &text = source->manifest();
  const le::Manifest manifest = le::parse_manifest(text.data(), text.size());
  require_proven(manifest);
  const Signed by = require_signed(*robot, text, source->signature(), allow_unsigned);
  const std::string identity = hex(manifest.sha256), active = robot->active();
  Object answer;
  for (const auto &[name, slot] : robot->state().slots) {
    if (slot.manifest_sha256 != identity || slot.state == "bad") continue;
    return answer.text("slot", name).text("already", name == active ? "active" : "installed");
  }
  require_room(*robot, total_bytes(manifest));
  receive(robot, source, manifest);
  const std::string slot = robot->inactive(), fresh = slot + ".new", old = slot + ".old";
  fill(*robot, manifest, *source, fresh);
  read_back(robot->slots(), fresh, manifest, *source);
  State &state = robot->state();
  if (state.slots.erase(slot) > 0 || state.previous == slot) {
    if (state.previous == slot) state.previous.clear();
    robot->save();
  }
  if (exists(robot->slots(), slot)) rename_in(robot->slots(), slot, old);
  rename_in(robot->slots(), fresh, slot);
  Slot noted = described(robot->slots(), slot);
  noted.state = "installed";
  noted.key_id = by.key_id;
  noted.security_epoch = by.security_epoch;
  noted.installed_at_unix_s = now_unix_s();
  state.slots[slot] = noted;
  note_epoch(robot, by);
  robot->save();
  remove_all(robot->slots(), old);
  remove_all(robot->folder(), kIncoming);
  return answer.text("slot", slot);
}

Object missing(const Robot &robot, const std::string &text) {
  const le::Manifest manifest = le::read_manifest(text.data(), text.size());
  std::string rows;
  for (const le::Member &member : manifest.members) {
    uint64_t have = 0;
    if (exists(robot.folder(), kIncoming)) {
      const Handle incoming = open_folder(robot.folder(), kIncoming);
      if (held_incoming(incoming.get(), member)) continue;
      const Handle part = open_file(incoming.get(), part_name(member));
      if (part) have = size_of(part, member.name);
    }
    if (held_in_slots(robot, member)) continue;
    Object row;
    row.text("name", member.name).text("sha256", hex(member.sha256));
    row.number("size_bytes", member.size_bytes).number("have_bytes", have);
    rows += (rows.empty() ? "" : ", ") + row.end();
  }
  Object answer;
  answer.json("members", "[" + rows + "]").number("needs_bytes", total_bytes(manifest));
  return answer.number("free_bytes", free_bytes(robot.folder()));
}

le::Manifest manifest_of(const Robot &robot, const std::string &slot) {
  const Handle folder = open_folder(robot.slots(), slot);
  const std::string text = read_text(folder.get(), kManifest, le::kMostManifestBytes);
  return le::parse_manifest(text.data(), text.size());
}

void verify_slot(const Robot &robot, const std::string &slot) {
  const Handle folder = open_folder(robot.slots(), slot);
  const le::Manifest manifest = manifest_of(robot, slot);
  if (hex(manifest.sha256) != robot.state().slots.at(slot).manifest_sha256) {
    refuse(Exit::kRefused, "slot-changed",
           "Slot " + slot + " holds another release than was installed there.",
           "Install the release again.");
  }
  le::Folder(robot.slot_path(slot)).require_only(manifest.members);
  for (const le::Member &member : manifest.members) {
    const Place place = place_of(folder.get(), member, false);
    const Handle file = open_file(place.folder.get(), place.file);
    if (!file || hash_of(file.get(), member.name) != member.sha256) refuse_changed(member.name);
  }
}

}  // namespace agent
