// tokenizer.json: words of an instruction to the tokens that the planner takes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace le {

class Tokenizer {
 public:
  // Throws LE_MALFORMED where the file has no vocabulary or no padding token.
  Tokenizer(const uint8_t *data, size_t size);

  // The tokens of UTF-8 text, as many as there are. Throws LE_INVALID_ARGUMENT where the text is
  // not UTF-8 or holds no word that the policy knows, LE_INCOMPATIBLE where the file asks for rules
  // that this library does not have.
  std::vector<int64_t> encode(std::string_view text) const;

  bool knows(int64_t token) const;
  uint32_t vocabulary() const { return static_cast<uint32_t>(sorted_.size()); }
  uint32_t pad() const { return pad_; }
  // Of words that are not in the vocabulary; UINT32_MAX where there is none.
  uint32_t unknown() const { return unknown_; }

 private:
  std::map<std::string, uint32_t, std::less<>> words_;
  std::vector<uint32_t> sorted_;  // every token once
  uint32_t pad_, unknown_;
  bool lower_case_ = false;
  std::string unsupported_;  // the rule that this library does not have; or empty
};

}  // namespace le
