// libra-agent: the robot's side of an installation. One command, one JSON object, one exit status.
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "agent/answer.h"
#include "agent/commands.h"
#include "error.h"

namespace {

using agent::Exit;
using agent::Object;
using agent::Options;

constexpr const char *kUsage =
    "usage: libra-agent COMMAND [--root DIR] [--json]\n"
    "  status                         what runs, what lies in the slots\n"
    "  missing                        of the manifest on standard input, what is not here\n"
    "  install SOURCE [--allow-unsigned]\n"
    "                                 a folder, a .libra file, or - for a stream\n"
    "  verify [--slot a|b]            every byte against the manifest\n"
    "  provision [--slot a|b]         make it ready for this robot, and show it\n"
    "  self-test [--slot a|b]         golden vectors and latency\n"
    "  activate [--slot a|b] [--health-timeout-s N]\n"
    "                                 let it run, on trial\n"
    "  mark-good, mark-bad            end the trial\n"
    "  rollback                       back to what ran before\n"
    "  watch                          roll back by itself when a trial is not marked good\n";

[[noreturn]] void wrong_usage(const std::string &fact) {
  agent::refuse(Exit::kUsage, "usage", fact, "See libra-agent --help.");
}

Options read_options(const std::vector<std::string> &words) {
  Options options;
  for (size_t i = 1; i < words.size(); ++i) {
    const std::string &word = words[i];
    const auto value = [&]() -> const std::string & {
      if (++i >= words.size()) wrong_usage(word + " needs a value.");
      return words[i];
    };
    if (word == "--json") {
      options.json = true;
    } else if (word == "--root") {
      options.root = value();
    } else if (word == "--allow-unsigned") {
      options.allow_unsigned = true;
    } else if (word == "--slot") {
      options.slot = value();
      if (options.slot != "a" && options.slot != "b") wrong_usage("There are the slots a and b.");
    } else if (word == "--health-timeout-s") {
      char *end = nullptr;
      const std::string &text = value();
      options.health_timeout_s = std::strtoull(text.c_str(), &end, 10);
      const bool number = !text.empty() && text[0] >= '0' && text[0] <= '9' && *end == '\0';
      if (!number || options.health_timeout_s > agent::kMostHealthTimeoutS) {
        wrong_usage("--health-timeout-s is a number of seconds, at most a day.");
      }
    } else if (word.starts_with("--") || !options.source.empty()) {
      wrong_usage("There is no " + word + ".");
    } else {
      options.source = word;
    }
  }
  if (options.source.empty() == (words[0] == "install")) {
    wrong_usage(words[0] == "install" ? "install needs a source." : "There is no such argument.");
  }
  return options;
}

Exit exit_of(le_status status) {
  switch (status) {
    case LE_ABI_MISMATCH:
    case LE_WRONG_ARCHITECTURE:
    case LE_NO_PROVIDER:
    case LE_INCOMPATIBLE:
    case LE_NO_DRIVER:
    case LE_DRIVER_TOO_OLD:
    case LE_NO_DEVICE:
    case LE_SEVERAL_DEVICES:
    case LE_WRONG_DEVICE:
    case LE_DEVICE_TOO_SMALL:
    case LE_ENGINE_REFUSED:
      return Exit::kIncompatible;
    case LE_IO:
    case LE_NO_MEMORY:
      return Exit::kFailed;
    default:
      return Exit::kRefused;
  }
}

int say(bool json, const std::string &command, const Object &answer) {
  Object whole;
  whole.boolean("ok", true).text("command", command);
  const std::string rest = answer.end();
  std::string text = whole.end();
  if (rest != "{}") text = text.substr(0, text.size() - 1) + ", " + rest.substr(1);
  if (json) {
    std::printf("%s\n", text.c_str());
  } else {
    std::printf("%s: ok %s\n", command.c_str(), rest == "{}" ? "" : rest.c_str());
  }
  return std::fflush(stdout) == 0 ? 0 : static_cast<int>(Exit::kFailed);
}

int refuse_aloud(bool json, const std::string &command, const agent::Refusal &refusal) {
  if (json) {
    Object whole;
    whole.boolean("ok", false).text("command", command).text("code", refusal.code);
    whole.text("fact", refusal.fact).text("remedy", refusal.remedy);
    std::printf("%s\n", whole.end().c_str());
  } else {
    std::fprintf(stderr, "error[%s]: %s\n  remedy: %s\n", refusal.code.c_str(),
                 refusal.fact.c_str(), refusal.remedy.c_str());
  }
  std::fflush(stdout);
  return static_cast<int>(refusal.exit);
}

}  // namespace

int main(int argc, char **argv) {
  const std::vector<std::string> words(argv + (argc > 0), argv + argc);
  if (words.empty() || words[0] == "--help" || words[0] == "-h") {
    std::fputs(kUsage, words.empty() ? stderr : stdout);
    return words.empty() ? static_cast<int>(Exit::kUsage) : 0;
  }
  if (words[0] == "--version") {
    std::printf("libra-agent %s\n", LE_VERSION);
    return 0;
  }
  bool json = false;
  for (const std::string &word : words) json = json || word == "--json";
  try {
    const auto command = agent::commands().find(words[0]);
    if (command == agent::commands().end()) wrong_usage("There is no command " + words[0] + ".");
    return say(json, words[0], command->second(read_options(words)));
  } catch (const agent::Refusal &refusal) {
    return refuse_aloud(json, words[0], refusal);
  } catch (const le::Error &error) {
    const char *remedy = "Fetch the release again, or compile one for this robot.";
    return refuse_aloud(json, words[0],
                        {exit_of(error.status), "release-refused", error.text, remedy});
  } catch (const std::exception &error) {
    const char *remedy = "Run it again; what runs on the robot is untouched.";
    return refuse_aloud(json, words[0], {Exit::kFailed, "system", error.what(), remedy});
  }
}
