#include "error.h"

#include <cstdarg>
#include <cstdio>

namespace le {

void fail(le_status status, const char *format, ...) {
  char text[LE_ERROR_SIZE];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  throw Error{status, text};
}

}  // namespace le
