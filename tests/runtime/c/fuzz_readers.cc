// What strangers send, for libFuzzer or fuzz_driver.cc: the first byte of an input chooses a
// reader, the rest is for it. A refusal is an answer; anything else, sanitizers included, ends the
// process.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>

#include "agent/answer.h"
#include "agent/source.h"
#include "error.h"
#include "release/manifest.h"
#include "release/signature.h"
#include "release/trust.h"

namespace {

constexpr int64_t kNow = 1767268800;

// Trust file, manifest and signature in one, each behind four bytes of its length.
std::string cut(const char **at, const char *end) {
  uint32_t size = 0;
  for (int i = 0; i < 4 && *at < end; ++i) {
    size = size << 8 | static_cast<uint8_t>(*(*at)++);
  }
  const size_t left = static_cast<size_t>(end - *at), taken = size < left ? size : left;
  std::string part(*at, taken);
  *at += taken;
  return part;
}

void read_signed(const char *at, const char *end) {
  const le::Trust trust = le::parse_trust(cut(&at, end));
  const std::string manifest = cut(&at, end), signature = cut(&at, end);
  le::check_signature(manifest, signature, trust, kNow);
}

void read_packed(const char *at, size_t size) {
  const agent::Handle file(memfd_create("packed", MFD_CLOEXEC));
  agent::write_all(file, at, size, "packed");
  const auto source = agent::open_source("/proc/self/fd/" + std::to_string(file.get()));
  const le::Manifest manifest =
      le::read_manifest(source->manifest().data(), source->manifest().size());
  uint64_t sum = 0;
  source->deliver(
      manifest,
      [&](const le::Member &, uint64_t) -> agent::Sink {
        return [&](const uint8_t *data, size_t count) { sum += count > 0 ? data[0] : 0; };
      },
      [](const le::Member &) {});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  const char *at = reinterpret_cast<const char *>(data) + 1, *end = at + size - 1;
  try {
    switch (data[0] % 4) {
      case 0:
        le::parse_manifest(at, size - 1);
        break;
      case 1:
        le::parse_trust({at, size - 1});
        break;
      case 2:
        read_signed(at, end);
        break;
      default:
        read_packed(at, size - 1);
    }
  } catch (const le::Error &) {
  } catch (const agent::Refusal &) {
  }
  return 0;
}
