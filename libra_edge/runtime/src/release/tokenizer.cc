#include "release/tokenizer.h"

#include <algorithm>

#include "error.h"
#include "release/json.h"
#include "release/utf8.h"

namespace le {
namespace {

constexpr const char *kName = "tokenizer.json";
constexpr const char *kPad = "[PAD]", *kUnknown = "[UNK]";
constexpr uint32_t kNone = UINT32_MAX;

uint32_t parse_token(const Json &json) {
  const uint64_t token = json.integer();
  if (token >= kNone) fail(LE_MALFORMED, "%s is no token.", json.path().c_str());
  return static_cast<uint32_t>(token);
}

// The `type` of a part; "" where there is none.
std::string type_of(const Json &root, const char *part) {
  return root.has(part) && root.at(part).has("type") ? root.at(part).at("type").text() : "";
}

// What a file asks for that `encode` does not do; "" where there is nothing.
std::string find_unsupported(const Json &root) {
  if (type_of(root, "model") != "WordLevel") return "a model that is not WordLevel";
  if (root.has("added_tokens") && !root.at("added_tokens").items().empty()) return "added tokens";
  if (type_of(root, "pre_tokenizer") != "Whitespace") return "a pre-tokenizer";
  if (root.has("normalizer") && type_of(root, "normalizer") != "Lowercase") return "a normalizer";
  for (const char *part : {"post_processor", "truncation", "padding"}) {
    if (root.has(part)) return std::string("a ") + part;
  }
  return "";
}

// Words in lower case, split where a space stands and where letters meet signs.
std::vector<std::string> split(const std::vector<uint32_t> &characters) {
  std::vector<std::string> pieces;
  bool open = false, word = false;
  for (const uint32_t c : characters) {
    const bool space = is_space(c), now_word = is_word_character(c);
    if (space || !open || now_word != word) {
      if (!space) pieces.emplace_back();
    }
    open = !space;
    word = now_word;
    if (open) append_utf8(c, &pieces.back());
  }
  return pieces;
}

}  // namespace

Tokenizer::Tokenizer(const uint8_t *data, size_t size) {
  const JsonDocument document(kName, reinterpret_cast<const char *>(data), size);
  const Json root = document.root(), model = root.at("model"), vocabulary = model.at("vocab");
  if (vocabulary.is_list()) {
    uint32_t token = 0;  // pairs of a word and its score, in the order of their tokens
    for (const Json &pair : vocabulary.items()) {
      const std::vector<Json> both = pair.items();
      if (both.empty()) fail(LE_MALFORMED, "%s is no word.", pair.path().c_str());
      words_.insert_or_assign(both[0].text(), token++);
    }
  } else {
    vocabulary.each_member([&](const Json &word, const Json &token) {
      words_.insert_or_assign(word.text(), parse_token(token));
    });
  }
  if (root.has("added_tokens")) {
    for (const Json &added : root.at("added_tokens").items()) {
      words_.insert_or_assign(added.at("content").text(), parse_token(added.at("id")));
    }
  }
  for (const auto &[word, token] : words_) sorted_.push_back(token);
  std::sort(sorted_.begin(), sorted_.end());
  sorted_.erase(std::unique(sorted_.begin(), sorted_.end()), sorted_.end());
  const auto find = [&](std::string_view word) {
    const auto found = words_.find(word);
    return found == words_.end() ? kNone : found->second;
  };
  pad_ = root.has("padding") ? parse_token(root.at("padding").at("pad_id")) : find(kPad);
  if (pad_ == kNone) fail(LE_MALFORMED, "%s has no %s token.", kName, kPad);
  unsupported_ = find_unsupported(root);
  lower_case_ = type_of(root, "normalizer") == "Lowercase";
  unknown_ = find(kUnknown);
  const bool named = unsupported_.empty() && model.has("unk_token");
  if (unsupported_.empty() && (!named || model.at("unk_token").text() != kUnknown)) {
    unsupported_ = "another unknown word than [UNK]";
  }
}

bool Tokenizer::knows(int64_t token) const {
  if (token < 0 || token >= kNone) return false;
  return std::binary_search(sorted_.begin(), sorted_.end(), static_cast<uint32_t>(token));
}

std::vector<int64_t> Tokenizer::encode(std::string_view text) const {
  if (!unsupported_.empty()) {
    fail(LE_INCOMPATIBLE, "The release's %s has %s; this library does not apply it.", kName,
         unsupported_.c_str());
  }
  std::vector<uint32_t> characters;
  for (const uint32_t c : characters_of(text)) {
    if (lower_case_) {
      append_lower_case(c, &characters);
    } else {
      characters.push_back(c);
    }
  }
  std::vector<int64_t> tokens;
  bool known = false;
  for (const std::string &piece : split(characters)) {
    const auto found = words_.find(piece);
    const uint32_t token = found == words_.end() ? unknown_ : found->second;
    if (token == kNone) fail(LE_INVALID_ARGUMENT, "The policy does not know a word of the text.");
    known = known || token != unknown_;
    tokens.push_back(token);
  }
  if (!known) fail(LE_INVALID_ARGUMENT, "No word of the text is known to this policy.");
  return tokens;
}

}  // namespace le
