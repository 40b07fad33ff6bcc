// Checked reading of untrusted JSON: every access names its place and its bounds.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "yyjson.h"

namespace le {

class Json {
 public:
  Json(yyjson_val *value, std::string path) : value_(value), path_(std::move(path)) {}

  // The member of an object. Each of these throws LE_MALFORMED where the value is not as asked.
  Json at(const char *key) const;
  // Whether an object has this member, and not as null.
  bool has(const char *key) const;
  uint64_t integer(uint64_t smallest, uint64_t largest) const;
  double number() const;
  // Printable text of at most `longest` bytes.
  std::string text(size_t longest) const;
  std::vector<Json> items(size_t fewest, size_t most) const;
  void each_member(const std::function<void(const std::string &, const Json &)> &visit) const;
  const std::string &path() const { return path_; }

 private:
  [[noreturn]] void mismatch(const char *expected) const;

  yyjson_val *value_;
  std::string path_;
};

class JsonDocument {
 public:
  // Throws LE_MALFORMED for anything but one bounded JSON value without repeated keys.
  JsonDocument(const char *data, size_t size);
  Json root() const { return {yyjson_doc_get_root(document_.get()), "manifest.json"}; }

 private:
  std::unique_ptr<yyjson_doc, decltype(&yyjson_doc_free)> document_;
};

}  // namespace le
