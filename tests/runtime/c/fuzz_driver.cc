// Changed copies of a corpus for LLVMFuzzerTestOneInput, the same ones for the same seed; for where
// no libFuzzer is. Usage: fuzz_driver INPUTS SEED FILE...
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

namespace {

const char *const kWords[] = {"{",
                              "}",
                              "[",
                              "]",
                              "\"",
                              ":",
                              ",",
                              "null",
                              "true",
                              "-1",
                              "1e999",
                              "1.0",
                              "\\",
                              "\\u",
                              "\xff",
                              "\xc3",
                              "\\ud800",
                              "../",
                              "/",
                              ".",
                              "\n",
                              " ",
                              "9223372036854775808",
                              "4294967296",
                              "2147483648",
                              "7777777777777",
                              "-0",
                              "ustar"};

class Changes {
 public:
  Changes(uint64_t seed, const std::vector<std::string> &corpus) : drawn_(seed), corpus_(corpus) {}

  std::string next() {
    std::string text = corpus_[below(corpus_.size())];
    for (size_t left = 1 + below(4); left > 0; --left) change(&text);
    return text;
  }

 private:
  size_t below(size_t end) { return end == 0 ? 0 : drawn_() % end; }

  void change(std::string *text) {
    const size_t at = below(text->size() + 1), count = below(text->size() - at + 1) % 64;
    switch (below(9)) {
      case 0:
        if (at < text->size()) (*text)[at] = static_cast<char>((*text)[at] ^ 1 << below(8));
        break;
      case 1:
        if (at < text->size()) (*text)[at] = static_cast<char>(below(256));
        break;
      case 2:
        text->resize(at);
        break;
      case 3:
        text->erase(at, count);
        break;
      case 4:
        text->insert(at, text->substr(below(text->size() + 1), count));
        break;
      case 5: {
        const std::string &other = corpus_[below(corpus_.size())];
        text->replace(at, count, other.substr(below(other.size() + 1), count));
        break;
      }
      case 6:
        text->insert(at, count, static_cast<char>(below(256)));
        break;
      default:
        text->replace(at, below(2) == 0 ? 0 : below(4), kWords[below(std::size(kWords))]);
    }
    if (text->size() > 1 << 16) text->resize(1 << 16);
  }

  std::mt19937_64 drawn_;
  const std::vector<std::string> &corpus_;
};

}  // namespace

int main(int count, char **words) {
  if (count < 4) return 2;
  std::vector<std::string> corpus;
  for (int i = 3; i < count; ++i) {
    std::ifstream file(words[i], std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    const std::string &text = corpus.back();
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t *>(text.data()), text.size());
  }
  const unsigned long long inputs = std::strtoull(words[1], nullptr, 10);
  Changes changes(std::strtoull(words[2], nullptr, 10), corpus);
  for (unsigned long long i = 0; i < inputs; ++i) {
    const std::string text = changes.next();
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t *>(text.data()), text.size());
  }
  std::printf("%llu inputs tried\n", inputs);
  return 0;
}
