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
std::string type_of(const Json &json) {
  return json.has("type") ? json.at("type").text() : "";
}

bool is_set(const Json &json, const char *flag) {
  return json.has(flag) && json.at(flag).is("true");
}

// Whether it is white space alone, as Python's `str.strip` sees it.
bool is_blank(const Characters &text) {
  return std::all_of(text.begin(), text.end(),
                     [](uint32_t c) { return is_space(c) || (c >= 0x1c && c <= 0x1f); });
}

}  // namespace

Tokenizer::Tokenizer(const uint8_t *data, size_t size) {
  const JsonDocument document(kName, reinterpret_cast<const char *>(data), size);
  const Json root = document.root();
  read_words(root);
  pad_ = root.has("padding") ? parse_token(root.at("padding").at("pad_id")) : find(kPad);
  if (pad_ == kNone) fail(LE_MALFORMED, "%s has no %s token.", kName, kPad);
  unknown_ = find(kUnknown);
  unsupported_ = read_rules(root);
}

void Tokenizer::read_words(const Json &root) {
  const Json vocabulary = root.at("model").at("vocab");
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
  for (const auto &[word, token] : words_) sorted_.push_back(token);
  if (root.has("added_tokens")) {
    for (const Json &json : root.at("added_tokens").items()) {
      added_.push_back({json.at("content").text(), parse_token(json.at("id"))});
      sorted_.push_back(added_.back().token);
    }
  }
  std::sort(sorted_.begin(), sorted_.end());
  sorted_.erase(std::unique(sorted_.begin(), sorted_.end()), sorted_.end());
}

uint32_t Tokenizer::find(const std::string &word) const {
  for (const Added &added : added_) {
    if (added.content == word) return added.token;
  }
  const auto found = words_.find(word);
  return found == words_.end() ? kNone : found->second;
}

std::string Tokenizer::read_rules(const Json &root) {
  const Json model = root.at("model");
  const std::string type = type_of(model);
  pairs_ = type == "BPE";
  if (!pairs_ && type != "WordLevel") return "a model that is neither BPE nor WordLevel";
  const bool named = model.has("unk_token");
  if (!pairs_ && (!named || model.at("unk_token").text() != kUnknown)) {
    return "another unknown word than [UNK]";
  }
  std::string found = pairs_ ? Bpe::find_unsupported(model, words_) : "";
  if (found.empty() && root.has("normalizer")) found = normalizer_.add(root.at("normalizer"));
  if (found.empty() && root.has("pre_tokenizer")) {
    found = pre_tokenizer_.add(root.at("pre_tokenizer"));
  }
  if (found.empty()) found = read_added(root);
  if (found.empty()) found = read_template(root);
  if (found.empty()) found = read_lengths(root);
  if (found.empty() && pairs_) bpe_ = Bpe(model, words_);
  return found;
}

std::string Tokenizer::read_added(const Json &root) {
  std::vector<Added> plain;
  if (root.has("added_tokens")) {
    size_t at = 0;
    for (const Json &json : root.at("added_tokens").items()) {
      const Added &added = added_[at++];
      for (const char *flag : {"single_word", "lstrip", "rstrip"}) {
        if (is_set(json, flag)) return std::string("added tokens with ") + flag;
      }
      if (added.content.empty()) return "added tokens without content";
      if (is_set(json, "normalized") && !normalizer_.empty()) return "added tokens to normalize";
      const auto word = words_.find(added.content);
      if (word != words_.end() && word->second != added.token) return "added tokens of two numbers";
      if (is_set(json, "special")) {
        special_.push_back(added.content);
      } else if (is_set(json, "normalized")) {
        return "added tokens that are normalized and not special";
      } else {
        plain.push_back(added);
      }
    }
  }
  added_ = std::move(plain);
  // Of those that begin at one place the longest is taken.
  std::stable_sort(added_.begin(), added_.end(), [](const Added &a, const Added &b) {
    return a.content.size() > b.content.size();
  });
  return "";
}

std::string Tokenizer::read_template(const Json &root) {
  if (!root.has("post_processor")) return "";
  const Json json = root.at("post_processor");
  const std::string type = type_of(json);
  if (type == "ByteLevel") return "";
  if (type != "TemplateProcessing") return "a post_processor " + type;
  bool text = false;
  for (const Json &part : json.at("single").items()) {
    if (part.has("Sequence")) {
      if (text || part.at("Sequence").at("id").text() != "A") return "a post_processor's text";
      text = true;
      continue;
    }
    const std::string name = part.at("SpecialToken").at("id").text();
    for (const Json &token : json.at("special_tokens").at(name.c_str()).at("ids").items()) {
      (text ? behind_ : front_).push_back(parse_token(token));
    }
  }
  return text ? "" : "a post_processor without text";
}

std::string Tokenizer::read_lengths(const Json &root) {
  const auto is_right = [](const Json &json) {
    return !json.has("direction") || json.at("direction").text() == "Right";
  };
  if (root.has("truncation")) {
    const Json json = root.at("truncation");
    const std::string strategy = json.at("strategy").text();
    if (!is_right(json)) return "a truncation from the left";
    if (strategy != "LongestFirst" && strategy != "OnlyFirst") return "a truncation " + strategy;
    if (json.has("stride") && json.at("stride").integer() != 0) return "a truncation with stride";
    most_ = json.at("max_length").integer();
    if (most_ <= front_.size() + behind_.size()) return "a truncation to no text";
  }
  if (root.has("padding")) {
    const Json json = root.at("padding");
    if (!is_right(json)) return "a padding on the left";
    if (json.has("pad_to_multiple_of")) return "a padding to a multiple";
    if (json.at("strategy").is("\"BatchLongest\"") || !json.at("strategy").has("Fixed")) {
      return "a padding to no fixed length";
    }
    padded_ = json.at("strategy").at("Fixed").integer();
  }
  return "";
}

bool Tokenizer::knows(int64_t token) const {
  if (token < 0 || token >= kNone) return false;
  return std::binary_search(sorted_.begin(), sorted_.end(), static_cast<uint32_t>(token));
}

// Of text between added tokens.
void Tokenizer::append(std::string_view text, std::vector<int64_t> *tokens) const {
  const Characters characters = normalizer_.apply(characters_of(text));
  for (const Characters &piece : pre_tokenizer_.apply(characters)) {
    std::string word;
    for (const uint32_t c : piece) append_utf8(c, &word);
    if (pairs_) {
      bpe_.append(word, words_, tokens);
      continue;
    }
    const auto found = words_.find(word);
    const uint32_t token = found == words_.end() ? unknown_ : found->second;
    if (token == kNone) fail(LE_INVALID_ARGUMENT, "The policy does not know a word of the text.");
    tokens->push_back(token);
  }
}

std::vector<int64_t> Tokenizer::encode(std::string_view text, uint32_t length) const {
  if (unsupported_.empty() && padded_ != 0 && padded_ != length) {
    fail(LE_INCOMPATIBLE, "The release's %s pads to another length than its policy takes.", kName);
  }
  if (!unsupported_.empty()) {
    fail(LE_INCOMPATIBLE, "The release's %s has %s; this library does not apply it.", kName,
         unsupported_.c_str());
  }
  const bool blank = is_blank(characters_of(text));
  for (const std::string &word : special_) {
    if (text.find(word) != std::string_view::npos) {
      fail(LE_INVALID_ARGUMENT, "The text holds %s, which is a mark to this policy, not text.",
           word.c_str());
    }
  }
  std::vector<int64_t> tokens;
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    const auto found = std::find_if(added_.begin(), added_.end(), [&](const Added &added) {
      return text.compare(at, added.content.size(), added.content) == 0;
    });
    if (found == added_.end()) {
      ++at;
      continue;
    }
    if (at > start) append(text.substr(start, at - start), &tokens);
    tokens.push_back(found->token);
    start = at += found->content.size();
  }
  if (start < text.size()) append(text.substr(start), &tokens);
  const uint64_t room = most_ == UINT64_MAX ? most_ : most_ - front_.size() - behind_.size();
  if (tokens.size() > room) tokens.resize(room);
  tokens.insert(tokens.begin(), front_.begin(), front_.end());
  tokens.insert(tokens.end(), behind_.begin(), behind_.end());
  const auto is_known = [&](int64_t token) { return token != unknown_; };
  if (blank || std::none_of(tokens.begin(), tokens.end(), is_known)) {
    fail(LE_INVALID_ARGUMENT, "No word of the text is known to this policy.");
  }
  return tokens;
}

}  // namespace le
