#include "release/bpe.h"

#include <cstdio>
#include <functional>
#include <queue>
#include <tuple>

#include "error.h"
#include "release/utf8.h"

namespace le {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

uint64_t key_of(uint32_t left, uint32_t right) {
  return static_cast<uint64_t>(left) << 32 | right;
}

uint32_t find_word(const Words &words, const std::string &word) {
  const auto found = words.find(word);
  return found == words.end() ? kNone : found->second;
}

bool is_set(const Json &model, const char *flag) {
  return model.has(flag) && model.at(flag).is("true");
}

}  // namespace

Bpe::Bpe(const Json &model, const Words &words)
    : fuse_unknown_(is_set(model, "fuse_unk")),
      byte_fallback_(is_set(model, "byte_fallback")),
      ignore_merges_(is_set(model, "ignore_merges")) {
  if (model.has("unk_token")) unknown_ = find_word(words, model.at("unk_token").text());
  const std::vector<Json> merges = model.at("merges").items();
  merges_.reserve(merges.size());
  uint32_t rank = 0;
  for (const Json &merge : merges) {
    std::string left, right;
    if (merge.is_list()) {
      const std::vector<Json> both = merge.items();
      if (both.size() != 2) fail(LE_MALFORMED, "%s is no merge.", merge.path().c_str());
      left = both[0].text(), right = both[1].text();
    } else {
      const std::string both = merge.text();
      const size_t space = both.find(' ');
      if (space == std::string::npos || both.find(' ', space + 1) != std::string::npos) {
        fail(LE_MALFORMED, "%s is no merge.", merge.path().c_str());
      }
      left = both.substr(0, space), right = both.substr(space + 1);
    }
    const uint32_t a = find_word(words, left), b = find_word(words, right);
    const uint32_t token = find_word(words, left + right);
    if (a == kNone || b == kNone || token == kNone) {
      fail(LE_MALFORMED, "%s is not of the vocabulary.", merge.path().c_str());
    }
    merges_.insert_or_assign(key_of(a, b), Merge{rank++, token});
  }
}

std::string Bpe::find_unsupported(const Json &model, const Words &words) {
  for (const char *rule : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.has(rule)) return std::string("a model with ") + rule;
  }
  if (model.has("unk_token") && find_word(words, model.at("unk_token").text()) == kNone) {
    return "an unk_token outside of its vocabulary";
  }
  return "";
}

const Bpe::Merge *Bpe::find(uint32_t left, uint32_t right) const {
  const auto found = merges_.find(key_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

// One token a character, or one a byte where the vocabulary has only those.
std::vector<uint32_t> Bpe::characters(const std::string &piece, const Words &words) const {
  std::vector<uint32_t> tokens;
  bool pending = false;  // an unknown character that a next one may join
  for (const uint32_t character : characters_of(piece)) {
    std::string text;
    append_utf8(character, &text);
    const uint32_t token = find_word(words, text);
    if (token != kNone) {
      if (pending) tokens.push_back(unknown_);
      pending = false;
      tokens.push_back(token);
      continue;
    }
    if (byte_fallback_) {
      std::vector<uint32_t> bytes;
      for (const char byte : text) {
        char name[8];
        std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(byte) & 0xffU);
        const uint32_t found = find_word(words, name);
        if (found != kNone) bytes.push_back(found);
      }
      if (bytes.size() == text.size()) {
        // The library keeps a pending unknown word back until after these bytes.
        tokens.insert(tokens.end(), bytes.begin(), bytes.end());
        continue;
      }
    }
    if (unknown_ == kNone) continue;
    if (pending && !fuse_unknown_) tokens.push_back(unknown_);
    pending = true;
  }
  if (pending) tokens.push_back(unknown_);
  return tokens;
}

void Bpe::append(const std::string &piece, const Words &words, std::vector<int64_t> *to) const {
  if (ignore_merges_) {
    const uint32_t whole = find_word(words, piece);
    if (whole != kNone) {
      to->push_back(whole);
      return;
    }
  }
  std::vector<uint32_t> tokens = characters(piece, words);
  const size_t count = tokens.size();
  std::vector<size_t> before(count), after(count);
  for (size_t i = 0; i < count; ++i) before[i] = i - 1, after[i] = i + 1;
  using Step = std::tuple<uint32_t, size_t, uint32_t>;  // rank, place, token
  std::priority_queue<Step, std::vector<Step>, std::greater<>> steps;
  const auto propose = [&](size_t left) {
    if (after[left] >= count) return;
    const Merge *merge = find(tokens[left], tokens[after[left]]);
    if (merge != nullptr) steps.emplace(merge->rank, left, merge->token);
  };
  for (size_t i = 0; i < count; ++i) propose(i);
  while (!steps.empty()) {
    const auto [rank, left, token] = steps.top();
    steps.pop();
    if (tokens[left] == kNone || after[left] >= count) continue;
    const size_t right = after[left];
    const Merge *merge = find(tokens[left], tokens[right]);
    if (merge == nullptr || merge->token != token) continue;  // a neighbour was merged meanwhile
    tokens[left] = token;
    tokens[right] = kNone;
    after[left] = after[right];
    if (after[left] < count) before[after[left]] = left;
    if (left > 0) propose(before[left]);
    propose(left);
  }
  for (const uint32_t token : tokens) {
    if (token != kNone) to->push_back(token);
  }
}

}  // namespace le
