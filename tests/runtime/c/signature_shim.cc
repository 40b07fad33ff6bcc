// Exports the runtime's check of signatures to the tests.
#include <cstdio>
#include <string_view>

#include "error.h"
#include "release/signature.h"

namespace {

int32_t answer(const le::Error &error, char *text, uint64_t text_size) {
  std::snprintf(text, text_size, "%s", error.text.c_str());
  return error.status;
}

}  // namespace

// The signer's "id role", or the sentence on why there is none.
extern "C" __attribute__((visibility("default"))) int32_t check_signature(
    const char *manifest, uint64_t manifest_size, const char *signature, uint64_t signature_size,
    const char *trust, uint64_t trust_size, int64_t now_unix_s, char *text, uint64_t text_size) {
  try {
    const le::Trust trusted = le::parse_trust({trust, trust_size});
    const le::Signer signer = le::check_signature({manifest, manifest_size},
                                                  {signature, signature_size}, trusted, now_unix_s);
    std::snprintf(text, text_size, "%s %s", signer.key_id.c_str(), signer.role.c_str());
    return LE_OK;
  } catch (const le::Error &error) {
    return answer(error, text, text_size);
  }
}

// Whether it is a trust file, and whether it takes unsigned releases ("1" or "0").
extern "C" __attribute__((visibility("default"))) int32_t read_trust(const char *path, char *text,
                                                                     uint64_t text_size) {
  try {
    std::snprintf(text, text_size, "%d", le::read_trust(path).allow_unsigned ? 1 : 0);
    return LE_OK;
  } catch (const le::Error &error) {
    return answer(error, text, text_size);
  }
}

// Takes `count` releases of one key in turn; how many were accepted.
extern "C" __attribute__((visibility("default"))) uint64_t accepted_epochs(const char *const *keys,
                                                                           const uint64_t *epochs,
                                                                           uint64_t count,
                                                                           uint8_t *accepted) {
  le::Epochs seen;
  uint64_t taken = 0;
  for (uint64_t i = 0; i < count; ++i) {
    accepted[i] = 1;
    try {
      seen = le::accept_epoch(seen, keys[i], epochs[i]);
      ++taken;
    } catch (const le::Error &) {
      accepted[i] = 0;
    }
  }
  return taken;
}
