// Shared libraries out of sealed memory.
#pragma once

#include "libra_edge.h"
#include "release/memory_file.h"
#include "release/sha256.h"

namespace le {

// Throws `status` where the file is no shared library for this machine, or is cut short; `name` is
// for messages.
void require_library(const MemoryFile &file, const char *name, le_status status);

// The handle of a library whose bytes have this hash; `name` is for messages. The same bytes are
// loaded once and never unloaded: threads and thread-local data of a library may outlive its last
// user. Throws LE_ENGINE where the file is no library for this machine, is cut short, or cannot be
// loaded.
void *load_library(const MemoryFile &file, const Digest &sha256, const char *name);

}  // namespace le
