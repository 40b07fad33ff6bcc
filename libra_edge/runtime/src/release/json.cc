#include "release/json.h"

#include <algorithm>

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
