#include "release/json.h"

#include <algorithm>
#include <cstdint>
#include <set>

#include "error.h"
#include "release/canonical.h"

namespace le {
namespace {

yyjson_doc *parse(const char *name, const char *data, size_t size) {
  yyjson_read_err error;
  // Without YYJSON_READ_INSITU the reader leaves its input alone; its parameter is not const.
  yyjson_doc *document =
      yyjson_read_opts(const_cast<char *>(data), size, YYJSON_READ_NOFLAG, nullptr, &error);
  if (document == nullptr) {
    fail(LE_MALFORMED, "%s is not JSON: %s at byte %zu.", name, error.msg, error.pos);
  }
  return document;
}

constexpr int kDeepest = 32;

bool is_plain(yyjson_val *value, int depth) {
  if (yyjson_is_num(value)) return yyjson_is_uint(value) && yyjson_get_uint(value) <= INT32_MAX;
  if (!yyjson_is_ctn(value)) return true;
  if (depth == kDeepest) return false;
  size_t index, count;
  yyjson_val *key, *item;
  if (yyjson_is_arr(value)) {
    yyjson_arr_foreach(value, index, count, item) {
      if (!is_plain(item, depth + 1)) return false;
    }
    return true;
  }
  std::set<std::string_view> keys;
  yyjson_obj_foreach(value, index, count, key, item) {
    const bool first = keys.emplace(yyjson_get_str(key), yyjson_get_len(key)).second;
    if (!first || !is_plain(item, depth + 1)) return false;
  }
  return true;
}

}  // namespace

JsonDocument::JsonDocument(const char *name, const char *data, size_t size)
    : name_(name), document_(parse(name, data, size), yyjson_doc_free) {}

void JsonDocument::require_canonical(const char *data, size_t size) const {
  std::string written;
  const char *problem = write_canonical(yyjson_doc_get_root(document_.get()), &written);
  written += '\n';
  if (problem == nullptr && written != std::string_view(data, size)) {
    problem = "is not in the canonical byte form";
  }
  if (problem != nullptr) fail(LE_MALFORMED, "%s %s.", name_, problem);
}

void JsonDocument::require_plain() const {
  if (is_plain(yyjson_doc_get_root(document_.get()), 0)) return;
  fail(LE_MALFORMED,
       "%s has a key twice, is nested too deeply or holds other numbers than 0 to 2^31 - 1.",
       name_);
}

void Json::mismatch(const char *expected) const {
  fail(LE_MALFORMED, "%s is not %s.", path_.c_str(), expected);
}

Json Json::at(const char *key) const {
  yyjson_val *member = yyjson_obj_get(value_, key);
  if (member == nullptr) fail(LE_MALFORMED, "%s has no %s.", path_.c_str(), key);
  return {member, path_ + ": " + key};
}

bool Json::has(const char *key) const {
  yyjson_val *member = yyjson_obj_get(value_, key);
  return member != nullptr && !yyjson_is_null(member);
}

bool Json::holds(const char *key) const {
  return yyjson_obj_get(value_, key) != nullptr;
}

bool Json::is_list() const {
  return yyjson_is_arr(value_);
}

bool Json::is(const char *canonical) const {
  std::string written;
  return write_canonical(value_, &written) == nullptr && written == canonical;
}

uint64_t Json::integer() const {
  if (!yyjson_is_uint(value_)) mismatch("a whole number of at most 64 bits");
  return yyjson_get_uint(value_);
}

double Json::whole() const {
  if (yyjson_is_sint(value_)) return static_cast<double>(yyjson_get_sint(value_));
  return static_cast<double>(integer());
}

double Json::real() const {
  if (!yyjson_is_real(value_)) mismatch("a number with a point or an exponent");
  return yyjson_get_real(value_);
}

void Json::require_boolean() const {
  if (!yyjson_is_bool(value_)) mismatch("true or false");
}

bool Json::boolean() const {
  require_boolean();
  return yyjson_get_bool(value_);
}

std::string Json::text() const {
  if (!yyjson_is_str(value_)) mismatch("text");
  return {yyjson_get_str(value_), yyjson_get_len(value_)};
}

std::vector<Json> Json::items() const {
  if (!yyjson_is_arr(value_)) mismatch("a list");
  std::vector<Json> items;
  size_t index, count;
  yyjson_val *item;
  yyjson_arr_foreach(value_, index, count, item) {
    items.emplace_back(item, path_ + " " + std::to_string(index));
  }
  return items;
}

void Json::require_keys(std::initializer_list<std::string_view> known) const {
  each_member([&](const Json &name, const Json &) {
    const std::string key = name.text();
    if (std::find(known.begin(), known.end(), key) != known.end()) return;
    fail(LE_MALFORMED, "%s has an unknown key %.60s.", path_.c_str(), key.c_str());
  });
}

void Json::each_member(
    const std::function<void(const Json &name, const Json &value)> &visit) const {
  if (!yyjson_is_obj(value_)) mismatch("an object");
  size_t index, count;
  yyjson_val *key, *member;
  yyjson_obj_foreach(value_, index, count, key, member) {
    const std::string name(yyjson_get_str(key), std::min<size_t>(yyjson_get_len(key), 100));
    visit(Json(key, path_ + ": a key"), Json(member, path_ + ": " + name));
  }
}

}  // namespace le
