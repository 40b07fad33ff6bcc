// What a tokenizer.json does to text before its model: normalizers, then pre-tokenizers.
#pragma once

#include <string>
#include <vector>

#include "release/json.h"

namespace le {

using Characters = std::vector<uint32_t>;

class Normalizer {
 public:
  // Appends the rules of `json`, a normalizer; says the one that this library does not have, or "".
  std::string add(const Json &json);
  Characters apply(Characters text) const;
  bool empty() const { return rules_.empty(); }

 private:
  enum class Kind { kLowerCase, kReplace, kPrepend, kEndLine };
  struct Rule {
    Kind kind;
    Characters pattern, content;
  };
  std::vector<Rule> rules_;
};

class PreTokenizer {
 public:
  std::string add(const Json &json);
  // Pieces, none of them empty; bytes are written as characters where ByteLevel says so.
  std::vector<Characters> apply(Characters text) const;

 private:
  enum class Kind { kWhitespace, kDigits, kByteLevel };
  struct Rule {
    Kind kind;
    bool individual, prefix_space, split;
  };
  static void apply(const Rule &rule, Characters text, std::vector<Characters> *pieces);

  std::vector<Rule> rules_;
};

}  // namespace le
