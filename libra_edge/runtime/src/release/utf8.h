// Text as the tokenizer sees it: characters, and what kind each of them is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace le {

// Throws LE_INVALID_ARGUMENT where the text is not UTF-8.
std::vector<uint32_t> characters_of(std::string_view text);

void append_utf8(uint32_t character, std::string *to);
void append_lower_case(uint32_t character, std::vector<uint32_t> *to);
bool is_word_character(uint32_t character);
bool is_space(uint32_t character);
bool is_letter(uint32_t character);
bool is_number(uint32_t character);
// As the pre-tokenizer Digits sees it.
bool is_digit(uint32_t character);

}  // namespace le
