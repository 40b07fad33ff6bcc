#include "agent/answer.h"

#include <cmath>
#include <cstdio>
#include <utility>

namespace agent {

void refuse(Exit exit, const char *code, std::string fact, std::string remedy) {
  throw Refusal{exit, code, std::move(fact), std::move(remedy)};
}

Object &Object::raw(const char *key, const std::string &value) {
  if (!body_.empty()) body_ += ", ";
  body_ += quoted(key) + ": " + value;
  return *this;
}

Object &Object::text(const char *key, const std::string &value) {
  return raw(key, quoted(value));
}

Object &Object::number(const char *key, uint64_t value) {
  return raw(key, std::to_string(value));
}

Object &Object::real(const char *key, double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return raw(key, std::isfinite(value) ? text : "null");
}

Object &Object::boolean(const char *key, bool value) {
  return raw(key, value ? "true" : "false");
}

Object &Object::nothing(const char *key) {
  return raw(key, "null");
}

Object &Object::json(const char *key, const std::string &value) {
  return raw(key, value);
}

std::string quoted(const std::string &text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", byte);
      out += escape;
    } else {
      out += byte < 0x80 ? c : '?';
    }
  }
  return out + "\"";
}

}  // namespace agent
