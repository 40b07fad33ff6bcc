#include "release/signature.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "error.h"
#include "release/base64.h"
#include "release/json.h"
#include "release/manifest.h"
#include "release/sha256.h"

namespace le {
namespace {

constexpr const char *kBundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
constexpr const char *kPayload = "application/vnd.in-toto+json";
constexpr const char *kStatement = "https://in-toto.io/Statement/v1";
constexpr const char *kPredicate = "https://model_signing/signature/v1.0";

void require_text(const Json &json, const char *expected) {
  if (json.text() == expected) return;
  fail(LE_MALFORMED, "%s is not %s.", json.path().c_str(), expected);
}

Json only_item(const Json &json) {
  const std::vector<Json> items = json.items();
  if (items.size() != 1) fail(LE_MALFORMED, "%s has not one item.", json.path().c_str());
  return items[0];
}

std::string decoded(const Json &json) {
  std::optional<std::string> bytes = from_base64(json.text());
  if (!bytes) fail(LE_MALFORMED, "%s is not base64.", json.path().c_str());
  return *std::move(bytes);
}

// What is signed: DSSE's pre-authentication encoding.
std::string signed_bytes(const std::string &payload) {
  const std::string type = kPayload;
  return "DSSEv1 " + std::to_string(type.size()) + " " + type + " " +
         std::to_string(payload.size()) + " " + payload;
}

const uint8_t *bytes_of(const std::string &text) {
  return reinterpret_cast<const uint8_t *>(text.data());
}

struct Envelope {
  std::string hint, payload, signature;
};

Envelope read_envelope(std::string_view text) {
  if (text.size() > kMostSignatureBytes) fail(LE_MALFORMED, "%s is too large.", kSignatureFile);
  const JsonDocument document(kSignatureFile, text.data(), text.size());
  document.require_plain();
  // No signature covers the bundle itself, so that nothing in it may be of no account.
  const Json root = document.root();
  root.require_keys({"mediaType", "verificationMaterial", "dsseEnvelope"});
  require_text(root.at("mediaType"), kBundle);
  const Json material = root.at("verificationMaterial"), key = material.at("publicKey");
  material.require_keys({"publicKey", "tlogEntries"});
  key.require_keys({"hint"});
  if (material.holds("tlogEntries") && !material.at("tlogEntries").items().empty()) {
    fail(LE_MALFORMED, "%s has log entries, which nobody here checks.", kSignatureFile);
  }
  const Json dsse = root.at("dsseEnvelope");
  dsse.require_keys({"payload", "payloadType", "signatures"});
  require_text(dsse.at("payloadType"), kPayload);
  const Json signature = only_item(dsse.at("signatures"));
  signature.require_keys({"sig", "keyid"});
  if (signature.holds("keyid")) require_text(signature.at("keyid"), "");
  return {key.at("hint").text(), decoded(dsse.at("payload")), decoded(signature.at("sig"))};
}

// What the statement has to list.
std::map<std::string, Digest> expected_resources(std::string_view text) {
  const Manifest manifest = read_manifest(text.data(), text.size());
  std::map<std::string, Digest> expected = {{"manifest.json", manifest.sha256}};
  for (const Member &member : manifest.members) expected[member.name] = member.sha256;
  return expected;
}

void require_statement(const std::string &payload, std::map<std::string, Digest> expected) {
  const JsonDocument document("The signed statement", payload.data(), payload.size());
  document.require_plain();
  const Json root = document.root(), predicate = root.at("predicate");
  require_text(root.at("_type"), kStatement);
  require_text(root.at("predicateType"), kPredicate);
  require_text(predicate.at("serialization").at("method"), "files");
  require_text(predicate.at("serialization").at("hash_type"), "sha256");
  const std::string whole = only_item(root.at("subject")).at("digest").at("sha256").text();
  Sha256 hash;
  for (const Json &resource : predicate.at("resources").items()) {
    require_text(resource.at("algorithm"), "sha256");
    const auto found = expected.find(resource.at("name").text());
    if (found == expected.end() || to_hex(found->second) != resource.at("digest").text()) {
      fail(LE_INTEGRITY, "%s is of another release: this one does not hold what %s says.",
           kSignatureFile, resource.path().c_str());
    }
    hash.update(found->second.data(), found->second.size());
    expected.erase(found);
  }
  if (!expected.empty()) {
    fail(LE_INTEGRITY, "%s does not cover %s.", kSignatureFile, expected.begin()->first.c_str());
  }
  if (to_hex(hash.finish()) != whole) {
    fail(LE_INTEGRITY, "%s is not the digest of what it lists.", kSignatureFile);
  }
}

void require_usable(const TrustedKey &key, const Trust &trust, int64_t now_unix_s) {
  const std::string shown = key.id.substr(0, 12);
  if (now_unix_s >= key.expires_unix_s) {
    fail(LE_UNPROVEN, "The key %s expired on %s.", shown.c_str(), key.expires.c_str());
  }
  if (key.role == "development" && !trust.allow_development) {
    fail(LE_UNPROVEN, "The key %s is for development; this robot takes release keys alone.",
         shown.c_str());
  }
}

}  // namespace

Signer check_signature(std::string_view manifest, std::string_view model_sig, const Trust &trust,
                       int64_t now_unix_s) {
  std::map<std::string, Digest> expected = expected_resources(manifest);
  const Envelope envelope = read_envelope(model_sig);
  const auto is_it = [&](const TrustedKey &one) { return one.hint == envelope.hint; };
  const auto key = std::find_if(trust.keys.begin(), trust.keys.end(), is_it);
  if (key == trust.keys.end()) {
    fail(LE_UNPROVEN, "%s is by a key that the trust file does not hold.", kSignatureFile);
  }
  const std::string message = signed_bytes(envelope.payload);
  if (!libra_p256_is_signature(key->point.data(), bytes_of(message), message.size(),
                               bytes_of(envelope.signature), envelope.signature.size())) {
    fail(LE_INTEGRITY, "%s is not a signature by the key that it names.", kSignatureFile);
  }
  require_usable(*key, trust, now_unix_s);
  require_statement(envelope.payload, std::move(expected));
  return {key->id, key->role};
}

Epochs accept_epoch(const Epochs &epochs, const std::string &key_id, uint64_t epoch) {
  Epochs raised = epochs;
  uint64_t &highest = raised[key_id];
  if (epoch < highest) {
    fail(LE_UNPROVEN, "The release has security epoch %llu; of its key %llu was accepted before.",
         static_cast<unsigned long long>(epoch), static_cast<unsigned long long>(highest));
  }
  highest = epoch;
  return raised;
}

}  // namespace le
