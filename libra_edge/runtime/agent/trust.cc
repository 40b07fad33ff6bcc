#include "agent/trust.h"

#include "error.h"
#include "release/json.h"

namespace agent {
namespace {

constexpr const char *kTrustFile = "trust.json";
constexpr size_t kMostTrustBytes = 1 << 20;

// Whether the robot's owner lets a command line allow releases without a signature.
bool may_be_unsigned(const Robot &robot) {
  const std::string text = read_text(robot.folder(), kTrustFile, kMostTrustBytes);
  if (text.empty()) return true;
  const le::JsonDocument trust(kTrustFile, text.data(), text.size());
  return trust.root().has("allow_unsigned") && trust.root().at("allow_unsigned").is("true");
}

}  // namespace

Signed require_signed(const Robot &robot, const std::string &, const std::string &signature,
                      bool allow_unsigned) {
  if (!may_be_unsigned(robot)) {
    refuse(Exit::kRefused, signature.empty() ? "unsigned" : "signature-unread",
           signature.empty() ? "The release has no signature, and trust.json asks for one."
                             : "This agent reads no signatures, and trust.json asks for one.",
           "Sign the release, or let the robot's owner change trust.json.");
  }
  if (!allow_unsigned) {
    refuse(Exit::kRefused, "unsigned", "Nobody's signature on the release is trusted here.",
           "Sign it, or install it with --allow-unsigned.");
  }
  return {};
}

void tell_trust(const Robot &robot, Object *answer) {
  answer->json("trust", "[]").boolean("allow_unsigned", may_be_unsigned(robot));
}

}  // namespace agent
