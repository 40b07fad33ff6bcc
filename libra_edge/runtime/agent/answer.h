// What the agent says, as one JSON object, and why it refuses.
#pragma once

#include <cstdint>
#include <string>

namespace agent {

// Exit statuses, the same for every command.
enum class Exit : int {
  kOk = 0,
  kFailed = 1,
  kUsage = 2,
  kRefused = 3,
  kIncompatible = 4,
  kBusy = 5
};

// The one exception of the agent.
struct Refusal {
  Exit exit;
  std::string code, fact, remedy;
};

[[noreturn]] void refuse(Exit exit, const char *code, std::string fact, std::string remedy);

// A JSON object in the making; keys stand in the order they are added.
class Object {
 public:
  Object &text(const char *key, const std::string &value);
  Object &number(const char *key, uint64_t value);
  Object &real(const char *key, double value);
  Object &boolean(const char *key, bool value);
  Object &nothing(const char *key);
  Object &json(const char *key, const std::string &value);
  std::string end() const { return "{" + body_ + "}"; }

 private:
  Object &raw(const char *key, const std::string &value);

  std::string body_;
};

// A string as JSON writes it; bytes that are no UTF-8 become question marks.
std::string quoted(const std::string &text);

}  // namespace agent
