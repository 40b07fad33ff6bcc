#include "release/text_rules.h"

#include <algorithm>
#include <string_view>

#include "error.h"
#include "release/utf8.h"

namespace le {
namespace {

// The pattern of the end of a text that does not end in a line break yet.
constexpr const char *kOpenEnd = "(?<!\\n)\\z";

bool is_set(const Json &json, const char *flag, bool otherwise) {
  return json.has(flag) ? json.at(flag).is("true") : otherwise;
}

std::string type_of(const Json &json) {
  return json.has("type") ? json.at("type").text() : "";
}

Characters replace(const Characters &text, const Characters &pattern, const Characters &content) {
  Characters replaced;
  for (auto at = text.begin();;) {
    const auto found = std::search(at, text.end(), pattern.begin(), pattern.end());
    replaced.insert(replaced.end(), at, found);
    if (found == text.end()) return replaced;
    replaced.insert(replaced.end(), content.begin(), content.end());
    at = found + static_cast<std::ptrdiff_t>(pattern.size());
  }
}

// How many characters from `at` on are one piece of the pattern of GPT-2:
// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t measure_piece(const Characters &text, size_t at) {
  const auto follows = [&](std::string_view ending) {
    return text.size() - at >= ending.size() &&
           std::equal(ending.begin(), ending.end(), text.begin() + static_cast<std::ptrdiff_t>(at),
                      [](char a, uint32_t b) { return static_cast<uint32_t>(a) == b; });
  };
  for (const char *ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (follows(ending)) return std::string_view(ending).size();
  }
  const size_t start = text[at] == ' ' && at + 1 < text.size() ? at + 1 : at;
  const auto is_sign = [](uint32_t c) { return !is_space(c) && !is_letter(c) && !is_number(c); };
  const auto run = [&](size_t from, auto belongs) {
    while (from < text.size() && belongs(text[from])) ++from;
    return from;
  };
  for (const size_t end : {run(start, is_letter), run(start, is_number), run(start, is_sign)}) {
    if (end > start) return end - at;
  }
  const size_t end = run(at, is_space);
  // The last space before a word is the word's.
  return end < text.size() && end - at > 1 ? end - at - 1 : end - at;
}

// The character that stands for a byte: itself where it can be seen, else one from U+0100 on.
uint32_t character_of(uint8_t byte) {
  const auto visible = [](unsigned b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  };
  if (visible(byte)) return byte;
  uint32_t hidden = 0;
  for (unsigned b = 0; b < byte; ++b) hidden += visible(b) ? 0 : 1;
  return 0x100 + hidden;
}

Characters write_bytes(const Characters &text) {
  std::string bytes;
  for (const uint32_t c : text) append_utf8(c, &bytes);
  Characters written;
  for (const char byte : bytes) written.push_back(character_of(static_cast<uint8_t>(byte)));
  return written;
}

}  // namespace

std::string Normalizer::add(const Json &json) {
  const std::string type = type_of(json);
  if (type == "Sequence") {
    for (const Json &part : json.at("normalizers").items()) {
      const std::string unsupported = add(part);
      if (!unsupported.empty()) return unsupported;
    }
    return "";
  }
  if (type == "Lowercase") {
    rules_.push_back({Kind::kLowerCase, {}, {}});
    return "";
  }
  if (type == "Prepend") {
    rules_.push_back({Kind::kPrepend, {}, characters_of(json.at("prepend").text())});
    return "";
  }
  if (type != "Replace") return "a normalizer " + type;
  const Json pattern = json.at("pattern");
  const std::string content = json.at("content").text();
  if (pattern.has("String") && !pattern.at("String").text().empty()) {
    rules_.push_back(
        {Kind::kReplace, characters_of(pattern.at("String").text()), characters_of(content)});
    return "";
  }
  const bool open_end = pattern.has("Regex") && pattern.at("Regex").text() == kOpenEnd;
  if (!open_end || content != "\n") return "a normalizer Replace with a pattern";
  rules_.push_back({Kind::kEndLine, {}, {}});
  return "";
}

Characters Normalizer::apply(Characters text) const {
  for (const Rule &rule : rules_) {
    if (text.empty()) return text;
    if (rule.kind == Kind::kLowerCase) {
      Characters lower;
      for (const uint32_t c : text) append_lower_case(c, &lower);
      text = std::move(lower);
    } else if (rule.kind == Kind::kReplace) {
      text = replace(text, rule.pattern, rule.content);
    } else if (rule.kind == Kind::kPrepend) {
      text.insert(text.begin(), rule.content.begin(), rule.content.end());
    } else if (text.back() != '\n') {
      text.push_back('\n');
    }
  }
  return text;
}

std::string PreTokenizer::add(const Json &json) {
  const std::string type = type_of(json);
  if (type == "Sequence") {
    for (const Json &part : json.at("pretokenizers").items()) {
      const std::string unsupported = add(part);
      if (!unsupported.empty()) return unsupported;
    }
    return "";
  }
  if (type == "Whitespace") {
    rules_.push_back({Kind::kWhitespace, false, false, false});
  } else if (type == "Digits") {
    rules_.push_back({Kind::kDigits, is_set(json, "individual_digits", false), false, false});
  } else if (type == "ByteLevel") {
    rules_.push_back({Kind::kByteLevel, false, is_set(json, "add_prefix_space", true),
                      is_set(json, "use_regex", true)});
  } else {
    return "a pre-tokenizer " + type;
  }
  return "";
}

void PreTokenizer::apply(const Rule &rule, Characters text, std::vector<Characters> *pieces) {
  if (rule.kind == Kind::kByteLevel) {
    if (rule.prefix_space && text.front() != ' ') text.insert(text.begin(), ' ');
    for (size_t at = 0; at < text.size();) {
      const size_t count = rule.split ? measure_piece(text, at) : text.size();
      const auto first = text.begin() + static_cast<std::ptrdiff_t>(at);
      pieces->push_back(write_bytes(Characters(first, first + static_cast<std::ptrdiff_t>(count))));
      at += count;
    }
    return;
  }
  bool open = false, before = false;
  for (const uint32_t c : text) {
    const bool digits = rule.kind == Kind::kDigits;
    const bool dropped = !digits && is_space(c);
    const bool now = digits ? is_digit(c) : is_word_character(c);
    if (!dropped) {
      if (!open || now != before || (rule.individual && now)) pieces->emplace_back();
      pieces->back().push_back(c);
    }
    open = !dropped;
    before = now;
  }
}

std::vector<Characters> PreTokenizer::apply(Characters text) const {
  std::vector<Characters> pieces;
  if (!text.empty()) pieces.push_back(std::move(text));
  for (const Rule &rule : rules_) {
    std::vector<Characters> finer;
    for (Characters &piece : pieces) apply(rule, std::move(piece), &finer);
    pieces = std::move(finer);
  }
  return pieces;
}

}  // namespace le
