// tokenizer.json: words of an instruction to the tokens that the planner takes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "release/bpe.h"
#include "release/text_rules.h"

namespace le {

class Tokenizer {
 public:
  // Throws LE_MALFORMED where the file has no vocabulary or no padding token.
  Tokenizer(const uint8_t *data, size_t size);

  // The tokens of UTF-8 text, as many as there are, cut where the file says so. `length` is T.
  // Throws LE_INVALID_ARGUMENT where the text is not UTF-8, holds a special token or no word that
  // the policy knows, LE_INCOMPATIBLE where the file asks for rules that this library does not
  // have.
  std::vector<int64_t> encode(std::string_view text, uint32_t length) const;

  bool knows(int64_t token) const;
  uint32_t vocabulary() const { return static_cast<uint32_t>(sorted_.size()); }
  uint32_t pad() const { return pad_; }
  // Of words that are not in the vocabulary; UINT32_MAX where there is none.
  uint32_t unknown() const { return unknown_; }

 private:
  struct Added {
    std::string content;
    uint32_t token;
  };

  void read_words(const Json &root);
  // Each says the rule that this library does not have, or "".
  std::string read_rules(const Json &root);
  std::string read_added(const Json &root);
  std::string read_template(const Json &root);
  std::string read_lengths(const Json &root);
  uint32_t find(const std::string &word) const;
  void append(std::string_view text, std::vector<int64_t> *tokens) const;

  Words words_;
  std::vector<uint32_t> sorted_;  // every token once
  uint32_t pad_, unknown_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  bool pairs_ = false;  // BPE, not WordLevel
  Bpe bpe_;
  std::vector<std::string> special_;
  std::vector<Added> added_;  // that text may hold
  std::vector<int64_t> front_, behind_;
  uint64_t most_ = UINT64_MAX, padded_ = 0;  // tokens; 0 where the file does not pad
  std::string unsupported_;                  // the rule that this library does not have; or empty
};

}  // namespace le
