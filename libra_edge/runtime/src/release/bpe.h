// Byte-pair encoding: a piece of text to tokens, by merging neighbours in the order of their ranks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "release/json.h"

namespace le {

using Words = std::unordered_map<std::string, uint32_t>;

class Bpe {
 public:
  Bpe() = default;
  // Throws LE_MALFORMED where a merge is of words that `words` does not have.
  Bpe(const Json &model, const Words &words);

  // A rule of the model that `append` does not have; "" where there is none.
  static std::string find_unsupported(const Json &model, const Words &words);
  void append(const std::string &piece, const Words &words, std::vector<int64_t> *tokens) const;

 private:
  struct Merge {
    uint32_t rank, token;
  };

  const Merge *find(uint32_t left, uint32_t right) const;
  std::vector<uint32_t> characters(const std::string &piece, const Words &words) const;

  std::unordered_map<uint64_t, Merge> merges_;
  uint32_t unknown_ = UINT32_MAX;
  bool fuse_unknown_ = false, byte_fallback_ = false, ignore_merges_ = false;
};

}  // namespace le
