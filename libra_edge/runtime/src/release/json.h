// Checked reading of untrusted JSON: every access names its place.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
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
  // Whether an object has this member, whatever it is.
  bool holds(const char *key) const;
  bool is_list() const;
  // Whether it is the value whose canonical form this is.
  bool is(const char *canonical) const;
  // A whole number from 0 on, written as one.
  uint64_t integer() const;
  // A whole number of either sign.
  double whole() const;
  // A number that is not written as a whole one.
  double real() const;
  void require_boolean() const;
  bool boolean() const;
  std::string text() const;
  std::vector<Json> items() const;
  // An object's keys are all among these.
  void require_keys(std::initializer_list<std::string_view> known) const;
  void each_member(const std::function<void(const Json &name, const Json &value)> &visit) const;
  const std::string &path() const { return path_; }

 private:
  [[noreturn]] void mismatch(const char *expected) const;

  yyjson_val *value_;
  std::string path_;
};

class JsonDocument {
 public:
  // Throws LE_MALFORMED for anything but one JSON value. `name` is the file's; it must stay.
  JsonDocument(const char *name, const char *data, size_t size);
  // Throws LE_MALFORMED where `data`, the bytes that it was read from, are not its canonical form:
  // keys in order, none twice, indented by 1, numbers as Python writes them.
  void require_canonical(const char *data, size_t size) const;
  // Throws LE_MALFORMED where two readers may differ on what it says: a key twice in an object,
  // deep nesting, a number that is not a whole one from 0 to 2^31 - 1.
  void require_plain() const;
  Json root() const { return {yyjson_doc_get_root(document_.get()), name_}; }

 private:
  const char *name_;
  std::unique_ptr<yyjson_doc, decltype(&yyjson_doc_free)> document_;
};

}  // namespace le
