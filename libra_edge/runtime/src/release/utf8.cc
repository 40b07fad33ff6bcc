#include "release/utf8.h"

#include <algorithm>
#include <iterator>

#include "error.h"
#include "release/unicode_table.h"

namespace le {
namespace {

// The range that would hold the character: the first that does not end before it.
template <typename Range, size_t kCount>
const Range *find(const Range (&ranges)[kCount], uint32_t character) {
  const Range *found =
      std::lower_bound(std::begin(ranges), std::end(ranges), character,
                       [](const Range &range, uint32_t wanted) { return range.last < wanted; });
  return found != std::end(ranges) && found->first <= character ? found : nullptr;
}

// Reads one character and moves on; UINT32_MAX where it is none.
uint32_t next(std::string_view text, size_t *at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(*at);
  const size_t length = first < 0x80             ? 1
                        : (first & 0xe0) == 0xc0 ? 2
                        : (first & 0xf0) == 0xe0 ? 3
                        : (first & 0xf8) == 0xf0 ? 4
                                                 : 0;
  if (length == 0 || *at + length > text.size()) return UINT32_MAX;
  uint32_t character = length == 1 ? first : first & (0x7fU >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(*at + i) & 0xc0) != 0x80) return UINT32_MAX;
    character = character << 6 | (byte(*at + i) & 0x3fU);
  }
  static constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = character >= 0xd800 && character < 0xe000;
  if (character < kSmallest[length] || character > 0x10ffff || surrogate) return UINT32_MAX;
  *at += length;
  return character;
}

}  // namespace

std::vector<uint32_t> characters_of(std::string_view text) {
  std::vector<uint32_t> characters;
  for (size_t at = 0; at < text.size();) {
    const uint32_t character = next(text, &at);
    if (character == UINT32_MAX) {
      fail(LE_INVALID_ARGUMENT, "The text is not UTF-8 at byte %zu.", at);
    }
    characters.push_back(character);
  }
  return characters;
}

void append_utf8(uint32_t c, std::string *to) {
  const auto tail = [&](int shift) { *to += static_cast<char>(0x80 | (c >> shift & 0x3f)); };
  if (c < 0x80) {
    *to += static_cast<char>(c);
  } else if (c < 0x800) {
    *to += static_cast<char>(0xc0 | c >> 6);
    tail(0);
  } else if (c < 0x10000) {
    *to += static_cast<char>(0xe0 | c >> 12);
    tail(6), tail(0);
  } else {
    *to += static_cast<char>(0xf0 | c >> 18);
    tail(12), tail(6), tail(0);
  }
}

void append_lower_case(uint32_t character, std::vector<uint32_t> *to) {
  for (const LowerPair &pair : kLowerPairs) {
    if (pair.character != character) continue;
    to->insert(to->end(), std::begin(pair.lower), std::end(pair.lower));
    return;
  }
  const LowerCase *move = find(kLowerCase, character);
  const bool moves = move != nullptr && (character - move->first) % move->step == 0;
  to->push_back(moves ? character + static_cast<uint32_t>(move->by) : character);
}

bool is_word_character(uint32_t character) {
  return find(kWordCharacters, character) != nullptr;
}

bool is_space(uint32_t character) {
  return find(kSpaces, character) != nullptr;
}

bool is_letter(uint32_t character) {
  return find(kLetters, character) != nullptr;
}

bool is_number(uint32_t character) {
  return find(kNumbers, character) != nullptr;
}

bool is_digit(uint32_t character) {
  return find(kDigits, character) != nullptr;
}

}  // namespace le
