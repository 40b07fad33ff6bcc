#include "release/base64.h"

namespace le {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string to_base64(std::string_view bytes) {
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i) {
      group = group << 8 | (at + i < bytes.size() ? static_cast<uint8_t>(bytes[at + i]) : 0U);
    }
    for (size_t i = 0; i < 4; ++i) {
      const bool unused = i > bytes.size() - at;
      text += unused ? '=' : kAlphabet[group >> (18 - 6 * i) & 63];
    }
  }
  return text;
}

std::optional<std::string> from_base64(std::string_view text) {
  std::string bytes;
  uint32_t group = 0;
  size_t digits = 0;
  const size_t end = text.find('=');
  for (const char c : text.substr(0, end)) {
    const size_t digit = kAlphabet.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    group = group << 6 | static_cast<uint32_t>(digit);
    if (++digits % 4 != 0) continue;
    for (const int shift : {16, 8, 0}) bytes += static_cast<char>(group >> shift & 255);
    group = 0;
  }
  if (digits % 4 >= 2) bytes += static_cast<char>(group >> (digits % 4 == 2 ? 4 : 10) & 255);
  if (digits % 4 == 3) bytes += static_cast<char>(group >> 2 & 255);
  // Padding, and bits that no byte uses, have one right form.
  if (to_base64(bytes) != text) return std::nullopt;
  return bytes;
}

}  // namespace le
