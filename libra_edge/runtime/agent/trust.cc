#include "agent/trust.h"

#include <ctime>

#include "error.h"
#include "release/manifest.h"
#include "release/signature.h"
#include "release/trust.h"

namespace agent {
namespace {

constexpr const char *kTrustFile = "trust.json";
constexpr size_t kMostTrustBytes = 1 << 20;
// What epochs of releases without a signature are counted under.
constexpr const char *kNobody = "unsigned";

// What the robot's owner wrote; a robot without it trusts nobody, and leaves it to the command
// line.
le::Trust trust_of(const Robot &robot) {
  const std::string text = read_text(robot.folder(), kTrustFile, kMostTrustBytes);
  if (text.empty() && !exists(robot.folder(), kTrustFile)) return {true, false, {}};
  return le::parse_trust(text);
}

[[noreturn]] void refuse_untrusted(const char *code, const std::string &fact) {
  refuse(Exit::kRefused, code, fact,
         "Sign it with a key that the robot's trust.json holds, or ask the robot's owner.");
}

Signed without_signature(const Robot &robot, const le::Trust &trust, const le::Manifest &manifest,
                         bool allow_unsigned, const std::string &why) {
  if (!trust.allow_unsigned) refuse_untrusted("unsigned", why + ", and trust.json asks for one.");
  if (!allow_unsigned) {
    refuse(Exit::kRefused, "unsigned", why + ".", "Sign it, or install it with --allow-unsigned.");
  }
  le::accept_epoch(robot.state().epochs, kNobody, manifest.security_epoch);
  return {"", manifest.security_epoch};
}

}  // namespace

Signed require_signed(const Robot &robot, const std::string &text, const std::string &signature,
                      bool allow_unsigned) {
  const le::Trust trust = trust_of(robot);
  const le::Manifest manifest = le::read_manifest(text.data(), text.size());
  if (signature.empty()) {
    return without_signature(robot, trust, manifest, allow_unsigned,
                             "The release has no signature");
  }
  try {
    const le::Signer signer = le::check_signature(text, signature, trust, std::time(nullptr));
    le::accept_epoch(robot.state().epochs, signer.key_id, manifest.security_epoch);
    return {signer.key_id, manifest.security_epoch};
  } catch (const le::Error &error) {
    // A robot that was told of no key cannot know this one.
    if (error.status == LE_UNPROVEN && trust.keys.empty()) {
      return without_signature(robot, trust, manifest, allow_unsigned,
                               "The release is signed by a key that nobody told this robot of");
    }
    refuse_untrusted("signature-refused", error.text);
  }
}

void note_epoch(Robot *robot, const Signed &by) {
  std::map<std::string, uint64_t> &epochs = robot->state().epochs;
  const std::string key = by.key_id.empty() ? kNobody : by.key_id;
  if (by.security_epoch > 0 || epochs.contains(key)) {
    epochs = le::accept_epoch(epochs, key, by.security_epoch);
  }
}

void tell_trust(const Robot &robot, Object *answer) {
  std::string keys;
  const le::Trust trust = trust_of(robot);
  for (const le::TrustedKey &key : trust.keys) {
    Object row;
    row.text("id", key.id).text("role", key.role).text("expires", key.expires);
    keys += (keys.empty() ? "" : ", ") + row.end();
  }
  answer->json("trust", "[" + keys + "]").boolean("allow_unsigned", trust.allow_unsigned);
}

}  // namespace agent
