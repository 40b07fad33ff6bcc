#include "release/json.h"

#include <cmath>

#include "error.h"

namespace le {
namespace {

constexpr int kMostNesting = 16;
constexpr size_t kMostMembers = 256;

// Two readers may take different ones of two equal keys; so there must not be any.
void check_structure(yyjson_val *value, int depth) {
  if (depth > kMostNesting) {
    fail(LE_MALFORMED, "manifest.json is nested deeper than %d levels.", kMostNesting);
  }
  size_t index, count;
  if (yyjson_is_arr(value)) {
    yyjson_val *item;
    yyjson_arr_foreach(value, index, count, item) check_structure(item, depth + 1);
  } else if (yyjson_is_obj(value)) {
    if (yyjson_obj_size(value) > kMostMembers) {
      fail(LE_MALFORMED, "manifest.json has an object of more than %zu members.", kMostMembers);
    }
    yyjson_val *key, *member;
    yyjson_obj_foreach(value, index, count, key, member) {
      if (yyjson_obj_getn(value, yyjson_get_str(key), yyjson_get_len(key)) != member) {
        fail(LE_MALFORMED, "manifest.json has a repeated key.");
      }
      check_structure(member, depth + 1);
    }
  }
}

yyjson_doc *parse(const char *data, size_t size) {
  yyjson_read_err error;
  // Without YYJSON_READ_INSITU the reader leaves its input alone; its parameter is not const.
  yyjson_doc *document =
      yyjson_read_opts(const_cast<char *>(data), size, YYJSON_READ_NOFLAG, nullptr, &error);
  if (document == nullptr) {
    fail(LE_MALFORMED, "manifest.json is not JSON: %s at byte %zu.", error.msg, error.pos);
  }
  return document;
}

}  // namespace

JsonDocument::JsonDocument(const char *data, size_t size)
    : document_(parse(data, size), yyjson_doc_free) {
  check_structure(yyjson_doc_get_root(document_.get()), 0);
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

uint64_t Json::integer(uint64_t smallest, uint64_t largest) const {
  const uint64_t value = yyjson_get_uint(value_);
  if (!yyjson_is_uint(value_) || value < smallest || value > largest) {
    const std::string expected =
        "an integer from " + std::to_string(smallest) + " to " + std::to_string(largest);
    mismatch(expected.c_str());
  }
  return value;
}

double Json::number() const {
  const double value = yyjson_get_num(value_);
  if (!yyjson_is_num(value_) || !std::isfinite(value)) mismatch("a finite number");
  return value;
}

std::string Json::text(size_t longest) const {
  if (!yyjson_is_str(value_)) mismatch("text");
  std::string text(yyjson_get_str(value_), yyjson_get_len(value_));
  if (text.size() > longest) mismatch("short enough a text");
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) mismatch("printable text");
  }
  return text;
}

std::vector<Json> Json::items(size_t fewest, size_t most) const {
  if (!yyjson_is_arr(value_) || yyjson_arr_size(value_) < fewest ||
      yyjson_arr_size(value_) > most) {
    const std::string expected =
        "a list of " + std::to_string(fewest) + " to " + std::to_string(most) + " items";
    mismatch(expected.c_str());
  }
  std::vector<Json> items;
  size_t index, count;
  yyjson_val *item;
  yyjson_arr_foreach(value_, index, count, item) {
    items.emplace_back(item, path_ + " " + std::to_string(index));
  }
  return items;
}

void Json::each_member(const std::function<void(const std::string &, const Json &)> &visit) const {
  if (!yyjson_is_obj(value_)) mismatch("an object");
  size_t index, count;
  yyjson_val *key, *member;
  yyjson_obj_foreach(value_, index, count, key, member) {
    const std::string name = Json(key, path_ + ": a key").text(128);
    visit(name, Json(member, path_ + ": " + name));
  }
}

}  // namespace le
