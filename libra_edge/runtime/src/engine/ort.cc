#include "engine/ort.h"

#include <dlfcn.h>

#include <cstring>

#include "error.h"

namespace le {
namespace {

using Slot = void (*)();

struct ApiBase {
  const Slot *(*table)(uint32_t version);
  const char *(*version)();
};

const ApiBase *api_base(void *library) {
  const auto entry = reinterpret_cast<const ApiBase *(*)()>(dlsym(library, "OrtGetApiBase"));
  if (entry == nullptr) fail(LE_ENGINE, "lib/libonnxruntime.so is not ONNX Runtime.");
  return entry();
}

}  // namespace

Ort::Ort(void *library, const std::string &expected_version) {
  const ApiBase *base = api_base(library);
  if (expected_version != base->version()) {
    fail(LE_INCOMPATIBLE, "lib/libonnxruntime.so has version %s; the manifest says %s.",
         base->version(), expected_version.c_str());
  }
  const Slot *table = base->table(kOrtApiVersion);
  if (table == nullptr) fail(LE_INCOMPATIBLE, "ONNX Runtime %s is too old.", base->version());
  table_ = table;
#define LE_ORT_LOAD(slot, name, result, parameters) \
  name = reinterpret_cast<result(*) parameters>(table[slot]);
  LE_ORT_SLOTS(LE_ORT_LOAD)
#undef LE_ORT_LOAD
}

void Ort::check(OrtStatus *status, const char *what) const {
  if (status == nullptr) return;
  const OrtHandle<OrtStatus> owner(status, release_status);
  // Some providers report in paragraphs; an error is one sentence.
  std::string words;
  for (const char *c = error_message(status); *c != '\0'; ++c) {
    const bool blank = *c == '\n' || *c == '\r' || *c == '\t' || *c == ' ';
    if (!blank) words += *c;
    if (blank && !words.empty() && words.back() != ' ') words += ' ';
  }
  fail(LE_ENGINE, "%s: %s", what, words.c_str());
}

}  // namespace le
