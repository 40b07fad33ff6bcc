// The one exception type of the runtime; the C boundary turns it into a status and a text.
#pragma once

#include <string>

#include "libra_edge.h"

namespace le {

struct Error {
  le_status status;
  std::string text;
};

// Throws Error with a printf-style sentence.
[[noreturn]] __attribute__((format(printf, 2, 3))) void fail(le_status status, const char *format,
                                                             ...);

}  // namespace le
