// The one byte form of a JSON value: bundle/manifest.py, canonical_json.
#pragma once

#include <string>

#include "yyjson.h"

namespace le {

// Appends the value to `to`, without a newline at its end. Returns nullptr, or what keeps it from
// having a canonical form: keys out of order or repeated, or nesting without bounds.
const char *write_canonical(yyjson_val *value, std::string *to);

}  // namespace le
