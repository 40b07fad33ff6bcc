#include "agent/self_test.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "agent/install.h"
#include "error.h"
#include "libra_edge.h"
#include "release/memory_file.h"

namespace agent {
namespace {

constexpr int kTimeLimitS = 120;
constexpr size_t kMostAnswerBytes = 4096;
constexpr size_t kNpyPreamble = 10;
constexpr size_t kMostNpyHeader = 4096;
constexpr int kTimedCalls = 30;
// Of each action's range. Golden vectors are the policy's own, computed on another machine.
constexpr double kFloatError = 1e-3, kRoundedError = 0.05;
// A token may differ where the two likeliest were this close, in logits.
constexpr float kFloatMargin = 1e-2f, kRoundedMargin = 1.0f;

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail_test(const std::string &fact) {
  refuse(Exit::kRefused, "self-test-failed", fact,
         "The robot keeps what it runs. Verify the release where it was compiled.");
}

// The release's own library, from the bytes that its manifest names.
class Library {
 public:
  Library(const Robot &robot, const std::string &slot, const le::Manifest &manifest)
      : bytes_("liblibra_edge") {
    const std::string path = robot.slot_path(slot) + "/lib";
    const Handle slots = open_folder(robot.slots(), slot);
    const Handle folder = open_folder(slots.get(), "lib");
    const Handle file = open_file(folder.get(), "liblibra_edge.so");
    std::vector<uint8_t> buffer(1 << 20);
    le::Sha256 hash;
    while (const size_t got =
               file ? read_some(file.get(), buffer.data(), buffer.size(), path) : 0) {
      hash.update(buffer.data(), got);
      bytes_.append(buffer.data(), got);
    }
    bytes_.seal();
    const le::Digest found = hash.finish();
    const bool same = std::any_of(
        manifest.members.begin(), manifest.members.end(), [&](const le::Member &member) {
          return std::string(member.name) == "lib/liblibra_edge.so" && member.sha256 == found;
        });
    if (!same) fail_test("lib/liblibra_edge.so is not the file that the manifest names.");
    const std::string link = "/proc/self/fd/" + std::to_string(bytes_.descriptor());
    library_ = dlopen(link.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr)
      fail_test(std::string("The release's library does not load: ") + dlerror());
  }

  template <typename Function>
  Function find(const char *name) const {
    void *found = dlsym(library_, name);
    if (found == nullptr) fail_test(std::string("The release's library has no ") + name + ".");
    return reinterpret_cast<Function>(found);
  }

 private:
  le::MemoryFile bytes_;
  void *library_ = nullptr;
};

// Golden arrays of one kind, [G, row].
template <typename Number>
struct Golden {
  std::vector<Number> values;
  size_t samples = 0, row = 0;

  const Number *at(size_t sample) const { return values.data() + sample * row; }
};

// Little-endian, C order, NumPy's format 1.0.
template <typename Number>
Golden<Number> read_golden(const Robot &robot, const std::string &slot, const std::string &name,
                           const char *type) {
  const Handle slots = open_folder(robot.slots(), slot);
  const Handle folder = open_folder(slots.get(), "golden");
  const Handle file = open_file(folder.get(), name + ".npy");
  Golden<Number> golden;
  if (!file) return golden;
  const auto wrong = [&] {
    fail_test("golden/" + name + ".npy is no array as releases hold them.");
  };
  uint8_t preamble[kNpyPreamble];
  if (read_some(file.get(), preamble, kNpyPreamble, name) != kNpyPreamble ||
      std::memcmp(preamble, "\x93NUMPY\x01\x00", 8) != 0) {
    wrong();
  }
  const size_t length = preamble[8] + 256u * preamble[9];
  std::string header(std::min(length, kMostNpyHeader), '\0');
  const size_t got =
      read_some(file.get(), reinterpret_cast<uint8_t *>(header.data()), header.size(), name);
  const size_t shape = header.find("'shape': (");
  if (got != length || header.find(std::string("'descr': '") + type + "'") == std::string::npos ||
      header.find("'fortran_order': False") == std::string::npos || shape == std::string::npos) {
    wrong();
  }
  golden.samples = std::strtoull(header.c_str() + shape + 10, nullptr, 10);
  const uint64_t bytes = size_of(file, name) - kNpyPreamble - length;
  const uint64_t row_bytes = golden.samples == 0 ? 0 : bytes / golden.samples;
  if (golden.samples == 0 || row_bytes * golden.samples != bytes ||
      row_bytes % sizeof(Number) != 0) {
    wrong();
  }
  golden.row = row_bytes / sizeof(Number);
  golden.values.resize(bytes / sizeof(Number));
  if (read_some(file.get(), reinterpret_cast<uint8_t *>(golden.values.data()), bytes, name) !=
      bytes) {
    wrong();
  }
  return golden;
}

class Test {
 public:
  Test(const Robot &robot, const std::string &slot)
      : manifest_(manifest_of(robot, slot)),
        library_(robot, slot, manifest_),
        images_(read_golden<uint8_t>(robot, slot, "images", "|u1")),
        words_(read_golden<int64_t>(robot, slot, "instruction", "<i8")),
        state_(read_golden<float>(robot, slot, "state", "<f4")),
        noise_(read_golden<float>(robot, slot, "noise", "<f4")),
        intent_(read_golden<int32_t>(robot, slot, "intent", "<i4")),
        margin_(read_golden<float>(robot, slot, "margin", "<f4")),
        actions_(read_golden<float>(robot, slot, "actions", "<f4")) {
    le_open_options options = {};
    options.struct_size = sizeof options;
    options.abi_version = LE_ABI_VERSION;
    const std::string path = robot.slot_path(slot);
    options.release_dir = path.c_str();
    options.threads = 1;
    const auto started = Clock::now();
    check(library_.find<decltype(&le_open)>("le_open")(&options, &policy_, error_, sizeof error_),
          "le_open");
    open_ms_ = since_ms(started);
    info_.struct_size = sizeof info_;
    check(library_.find<decltype(&le_info)>("le_info")(policy_, &info_), "le_info");
    rounded_ = manifest_.recipe != "fp32";
  }

  Object run() {
    if (actions_.samples == 0 || images_.samples != actions_.samples ||
        state_.samples != actions_.samples) {
      fail_test("The release has no golden vectors.");
    }
    for (size_t i = 0; i < actions_.samples; ++i) compare(i);
    std::vector<double> chunks;
    for (int i = 0; i < kTimedCalls; ++i) {
      const size_t sample = static_cast<size_t>(i) % actions_.samples;
      const auto started = Clock::now();
      refine(sample);
      const double refined_ms = since_ms(started);
      double planned_ms = 0;
      if (info_.plan_steps > 0) {
        const auto again = Clock::now();
        plan(sample);
        planned_ms = since_ms(again) / std::max(info_.chunks_per_plan, 1u);
      }
      chunks.push_back(refined_ms + planned_ms);
    }
    std::sort(chunks.begin(), chunks.end());
    const double median = chunks[chunks.size() / 2], limit = 1e3 * info_.chunk / info_.control_hz;
    if (median > limit) {
      char text[160];
      std::snprintf(text, sizeof text,
                    "A chunk takes %.1f ms here, and lasts %.1f ms: the robot would stand still.",
                    median, limit);
      fail_test(text);
    }
    Object answer;
    answer.number("golden", actions_.samples).real("action_error", worst_);
    answer.number("tokens_differ", differ_).real("open_ms", open_ms_);
    answer.real("chunk_median_ms", median).real("chunk_worst_ms", chunks.back());
    return answer.real("chunk_limit_ms", limit);
  }

 private:
  static double since_ms(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  }

  void check(le_status status, const char *what) const {
    if (status != LE_OK) fail_test(std::string(what) + ": " + error_);
  }

  le_observation observation(size_t sample) const {
    le_observation seen = {};
    seen.struct_size = sizeof seen;
    seen.images = images_.at(sample);
    seen.image_bytes = images_.row;
    seen.state = state_.at(sample);
    seen.state_count = static_cast<uint32_t>(state_.row);
    return seen;
  }

  void plan(size_t sample) {
    found_intent_.resize(intent_.row);
    found_margin_.resize(intent_.row);
    const le_observation seen = observation(sample);
    check(library_.find<decltype(&le_plan)>("le_plan")(
              policy_, &seen, words_.at(sample), static_cast<uint32_t>(words_.row),
              found_intent_.data(), found_margin_.data(), intent_.row, error_, sizeof error_),
          "le_plan");
  }

  // Where there is no planner the words go in by le_set_instruction.
  void refine(size_t sample) {
    if (info_.plan_steps == 0 && words_.row > 0) {
      check(
          library_.find<decltype(&le_set_instruction)>("le_set_instruction")(
              policy_, words_.at(sample), static_cast<uint32_t>(words_.row), error_, sizeof error_),
          "le_set_instruction");
    }
    found_actions_.resize(actions_.row);
    const le_observation seen = observation(sample);
    check(library_.find<decltype(&le_refine)>("le_refine")(
              policy_, &seen, intent_.row > 0 ? intent_.at(sample) : nullptr,
              noise_.row > 0 ? noise_.at(sample) : nullptr, found_actions_.data(), actions_.row,
              error_, sizeof error_),
          "le_refine");
  }

  void compare(size_t sample) {
    const float close = rounded_ ? kRoundedMargin : kFloatMargin;
    if (info_.plan_steps > 0) {
      plan(sample);
      for (size_t j = 0; j < intent_.row; ++j) {
        if (found_intent_[j] == intent_.at(sample)[j]) continue;
        ++differ_;
        if (!(margin_.at(sample)[j] < close)) {
          fail_test("The planner's tokens are not those of the golden vectors.");
        }
      }
    }
    refine(sample);
    const size_t dims = manifest_.limits.size();
    for (size_t j = 0; j < actions_.row; ++j) {
      const le::ActionLimit &limit = manifest_.limits[j % dims];
      const double range = static_cast<double>(limit.upper) - static_cast<double>(limit.lower);
      const double error = std::fabs(static_cast<double>(found_actions_[j]) -
                                     static_cast<double>(actions_.at(sample)[j])) /
                           range;
      if (!(error <= (rounded_ ? kRoundedError : kFloatError))) {
        char text[160];
        std::snprintf(text, sizeof text,
                      "The actions are not those of the golden vectors: off by %.3g of the range.",
                      error);
        fail_test(text);
      }
      worst_ = std::max(worst_, error);
    }
  }

  le::Manifest manifest_;
  Library library_;
  Golden<uint8_t> images_;
  Golden<int64_t> words_;
  Golden<float> state_, noise_;
  Golden<int32_t> intent_;
  Golden<float> margin_, actions_;
  le_policy *policy_ = nullptr;
  le_policy_info info_ = {};
  char error_[LE_ERROR_SIZE] = {};
  std::vector<int32_t> found_intent_;
  std::vector<float> found_margin_, found_actions_;
  bool rounded_ = false;
  double worst_ = 0, open_ms_ = 0;
  uint64_t differ_ = 0;
};

// The child's whole life: one byte of success, then its words.
[[noreturn]] void child(const Robot &robot, const std::string &slot, int out, pid_t agent) {
  // A killed agent leaves nothing behind: neither a release that runs on, nor its lock.
  close(robot.lock());
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != agent) _exit(1);
  std::string said;
  try {
    said = "+" + Test(robot, slot).run().end();
  } catch (const Refusal &refusal) {
    said = "-" + refusal.fact;
  } catch (const le::Error &error) {
    said = "-" + error.text;
  } catch (const std::exception &error) {
    said = std::string("-") + error.what();
  }
  said.resize(std::min(said.size(), kMostAnswerBytes));
  const ssize_t written = write(out, said.data(), said.size());
  // Nothing of the release runs on: no destructor, no handler at exit.
  _exit(written == static_cast<ssize_t>(said.size()) ? 0 : 1);
}

// What the child says until it ends; killed after the time limit.
std::string listen(int in, pid_t pid) {
  std::string said;
  const auto until = Clock::now() + std::chrono::seconds(kTimeLimitS);
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    pollfd wait = {in, POLLIN, 0};
    const int ready = left > 0 ? poll(&wait, 1, static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) continue;
    char piece[512];
    const ssize_t got = ready > 0 ? read(in, piece, sizeof piece) : -1;
    if (got > 0) said.append(piece, static_cast<size_t>(got));
    if (got > 0 && said.size() <= kMostAnswerBytes) continue;
    if (got < 0 && ready > 0 && errno == EINTR) continue;
    if (ready <= 0) {
      kill(pid, SIGKILL);
      said = "-It did not end within " + std::to_string(kTimeLimitS) + " s.";
    }
    return said;
  }
}

}  // namespace

Object self_test(const Robot &robot, const std::string &slot) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) fail_system("the self-test cannot begin");
  const Handle in(ends[0]);
  Handle out(ends[1]);
  const pid_t agent = getpid(), pid = fork();
  if (pid < 0) fail_system("the self-test cannot begin");
  if (pid == 0) child(robot, slot, out.get(), agent);
  out = Handle();
  const std::string said = listen(in.get(), pid);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status) && (said.empty() || said[0] == '+')) {
    fail_test(std::string("The release ended the self-test by ") + strsignal(WTERMSIG(status)) +
              ".");
  }
  if (said.empty() || said[0] != '+') {
    fail_test(said.size() > 1 ? said.substr(1) : "The self-test ended without a word.");
  }
  Object answer;
  return answer.json("self_test", said.substr(1));
}

}  // namespace agent
