#include "release/canonical.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace le {
namespace {

constexpr size_t kMostNesting = 16;

void write_text(std::string_view text, std::string *to) {
  *to += '"';
  for (const char c : text) {
    static constexpr char kEscaped[] = "\"\\\b\f\n\r\t", kLetters[] = "\"\\bfnrt";
    const size_t known = std::string_view(kEscaped).find(c);
    if (known != std::string_view::npos) {
      *to += {'\\', kLetters[known]};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
      *to += code;
    } else {
      *to += c;
    }
  }
  *to += '"';
}

// As Python's repr: the fewest digits that give the same number; an exponent outside 1e-4 to 1e16.
void write_real(double value, std::string *to) {
  char scientific[40];
  const auto end = std::to_chars(scientific, scientific + sizeof scientific, value,
                                 std::chars_format::scientific)
                       .ptr;
  std::string_view text(scientific, static_cast<size_t>(end - scientific));
  if (text.starts_with('-')) *to += '-', text.remove_prefix(1);
  const size_t e = text.find('e');
  std::string digits(1, text[0]);
  if (e > 2) digits += text.substr(2, e - 2);
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    *to += digits[0];
    if (count > 1) (*to += '.') += digits.substr(1);
    char tail[8];
    std::snprintf(tail, sizeof tail, "e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
    *to += tail;
  } else if (exponent < 0) {
    ((*to += "0.") += std::string(static_cast<size_t>(-exponent - 1), '0')) += digits;
  } else {
    const auto whole = static_cast<size_t>(exponent + 1);
    if (digits.size() <= whole) digits += std::string(whole - digits.size() + 1, '0');
    ((*to += digits.substr(0, whole)) += '.') += digits.substr(whole);
  }
}

void new_line(size_t depth, std::string *to) {
  (*to += '\n') += std::string(depth, ' ');
}

const char *write(yyjson_val *value, size_t depth, std::string *to);

const char *write_list(yyjson_val *list, size_t depth, std::string *to) {
  *to += '[';
  size_t index, count;
  yyjson_val *item;
  yyjson_arr_foreach(list, index, count, item) {
    if (index > 0) *to += ',';
    new_line(depth + 1, to);
    if (const char *problem = write(item, depth + 1, to)) return problem;
  }
  if (count > 0) new_line(depth, to);
  *to += ']';
  return nullptr;
}

// Two readers may take different ones of two equal keys; so there must not be any.
const char *write_object(yyjson_val *object, size_t depth, std::string *to) {
  *to += '{';
  size_t index, count;
  yyjson_val *key, *member;
  std::string_view before;
  yyjson_obj_foreach(object, index, count, key, member) {
    const std::string_view name(yyjson_get_str(key), yyjson_get_len(key));
    if (index > 0 && name == before) return "has a repeated key";
    if (index > 0 && name < before) return "is not in the canonical byte form: keys out of order";
    before = name;
    if (index > 0) *to += ',';
    new_line(depth + 1, to);
    write_text(name, to);
    *to += ": ";
    if (const char *problem = write(member, depth + 1, to)) return problem;
  }
  if (count > 0) new_line(depth, to);
  *to += '}';
  return nullptr;
}

const char *write(yyjson_val *value, size_t depth, std::string *to) {
  if (depth > kMostNesting) return "is nested deeper than 16 levels";
  if (yyjson_is_arr(value)) return write_list(value, depth, to);
  if (yyjson_is_obj(value)) return write_object(value, depth, to);
  if (yyjson_is_str(value)) {
    write_text({yyjson_get_str(value), yyjson_get_len(value)}, to);
  } else if (yyjson_is_real(value)) {
    write_real(yyjson_get_real(value), to);
  } else if (yyjson_is_uint(value)) {
    *to += std::to_string(yyjson_get_uint(value));
  } else if (yyjson_is_sint(value)) {
    *to += std::to_string(yyjson_get_sint(value));
  } else if (yyjson_is_bool(value)) {
    *to += yyjson_get_bool(value) ? "true" : "false";
  } else {
    *to += "null";
  }
  return nullptr;
}

}  // namespace

const char *write_canonical(yyjson_val *value, std::string *to) {
  return write(value, 0, to);
}

}  // namespace le
