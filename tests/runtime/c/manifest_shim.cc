// Exports the runtime's reader of manifests to the tests.
#include <cstdio>

#include "error.h"
#include "release/manifest.h"

// What became of these bytes, and the sentence on it.
extern "C" __attribute__((visibility("default"))) int32_t read_manifest(const char *data,
                                                                        uint64_t size, char *text,
                                                                        uint64_t text_size) {
  try {
    le::read_manifest(data, size);
    return LE_OK;
  } catch (const le::Error &error) {
    std::snprintf(text, text_size, "%s", error.text.c_str());
    return error.status;
  }
}
