#include "release/trust.h"

#include <fcntl.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "error.h"
#include "release/base64.h"
#include "release/folder.h"
#include "release/json.h"
#include "release/sha256.h"

namespace le {
namespace {

constexpr const char *kName = "trust.json";
constexpr size_t kMostBytes = 1 << 20;
constexpr size_t kMostKeys = 256;
constexpr int kSecondsPerDay = 86400;
constexpr std::string_view kBegin = "-----BEGIN PUBLIC KEY-----\n";
constexpr std::string_view kEnd = "-----END PUBLIC KEY-----\n";
// SubjectPublicKeyInfo of a P-256 key up to its point: ecPublicKey, prime256v1, a bit string of 66
// bytes.
constexpr std::string_view kKeyInfo(
    "\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
    "\x03\x42\x00",
    26);

std::string in_lines(const std::string &text) {
  std::string lines;
  for (size_t at = 0; at < text.size(); at += 64) lines += text.substr(at, 64) + '\n';
  return lines;
}

// SubjectPublicKeyInfo of a P-256 key in the one form of its PEM; nothing for any other text.
std::optional<std::string> key_info(const std::string &pem) {
  if (!pem.starts_with(kBegin) || !pem.ends_with(kEnd)) return std::nullopt;
  std::string body = pem.substr(kBegin.size());
  body.resize(body.size() > kEnd.size() ? body.size() - kEnd.size() : 0);
  std::erase(body, '\n');
  const std::optional<std::string> info = from_base64(body);
  if (!info || info->size() != kKeyInfo.size() + Point().size() || !info->starts_with(kKeyInfo)) {
    return std::nullopt;
  }
  if (std::string(kBegin) + in_lines(body) + std::string(kEnd) != pem) return std::nullopt;
  return info;
}

// The first second after a day YYYY-MM-DD from 1970 on; nothing where it is none.
std::optional<int64_t> end_of_day(const std::string &text) {
  constexpr std::string_view kForm = "dddd-dd-dd";
  if (text.size() != kForm.size()) return std::nullopt;
  for (size_t i = 0; i < kForm.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (kForm[i] == 'd' ? !digit : text[i] != kForm[i]) return std::nullopt;
  }
  const auto number = [&](size_t at, size_t digits) { return std::stoi(text.substr(at, digits)); };
  const std::chrono::year_month_day day(std::chrono::year(number(0, 4)),
                                        std::chrono::month(static_cast<unsigned>(number(5, 2))),
                                        std::chrono::day(static_cast<unsigned>(number(8, 2))));
  if (!day.ok() || number(0, 4) < 1970) return std::nullopt;
  return (std::chrono::sys_days(day).time_since_epoch().count() + 1) * int64_t{kSecondsPerDay};
}

TrustedKey read_key(const Json &json) {
  TrustedKey key;
  const std::string pem = json.at("public_key_pem").text();
  const std::optional<std::string> info = key_info(pem);
  if (info) std::copy(info->begin() + kKeyInfo.size(), info->end(), key.point.begin());
  if (!info || !libra_p256_is_point(key.point.data())) {
    fail(LE_MALFORMED, "%s: public_key_pem is not a P-256 public key in PEM.", json.path().c_str());
  }
  key.id = json.at("id").text();
  key.hint = to_hex(sha256(pem.data(), pem.size()));
  if (key.id != to_hex(sha256(info->data(), info->size()))) {
    fail(LE_MALFORMED, "%s: id is not the sha256 of its public key.", json.path().c_str());
  }
  key.role = json.at("role").text();
  if (key.role != "release" && key.role != "development") {
    fail(LE_MALFORMED, "%s: role is neither release nor development.", json.path().c_str());
  }
  key.expires = json.at("expires").text();
  const std::optional<int64_t> end = end_of_day(key.expires);
  if (!end) fail(LE_MALFORMED, "%s: expires is no day YYYY-MM-DD.", json.path().c_str());
  key.expires_unix_s = *end;
  return key;
}

}  // namespace

Trust parse_trust(std::string_view text) {
  if (text.size() > kMostBytes) fail(LE_MALFORMED, "%s is too large.", kName);
  const JsonDocument document(kName, text.data(), text.size());
  document.require_plain();
  const Json root = document.root();
  root.require_keys({"schema", "allow_unsigned", "allow_development", "keys"});
  if (root.at("schema").integer() != 1) fail(LE_MALFORMED, "%s has another schema than 1.", kName);
  Trust trust;
  trust.allow_unsigned = root.at("allow_unsigned").boolean();
  trust.allow_development =
      root.holds("allow_development") && root.at("allow_development").boolean();
  for (const Json &item : root.at("keys").items()) {
    item.require_keys({"id", "public_key_pem", "role", "expires"});
    trust.keys.push_back(read_key(item));
    const auto same = [&](const TrustedKey &one) { return one.id == trust.keys.back().id; };
    if (std::count_if(trust.keys.begin(), trust.keys.end(), same) > 1) {
      fail(LE_MALFORMED, "%s holds a key twice.", kName);
    }
    if (trust.keys.size() > kMostKeys) {
      fail(LE_MALFORMED, "%s holds more than %zu keys.", kName, kMostKeys);
    }
  }
  return trust;
}

Trust read_trust(const std::string &path) {
  const File file(AT_FDCWD, path.c_str(), kName, O_NONBLOCK);
  std::string text(std::min<uint64_t>(file.size(), kMostBytes + 1), '\0');
  text.resize(file.read(reinterpret_cast<uint8_t *>(text.data()), text.size()));
  return parse_trust(text);
}

}  // namespace le
