// Exports the runtime's SHA-256 to the tests.
#include <algorithm>

#include "release/sha256.h"

// Hashes `size` bytes, handed to the hash in pieces of `piece` bytes.
extern "C" __attribute__((visibility("default"))) void sha256_in_pieces(const char *data,
                                                                        uint64_t size,
                                                                        uint64_t piece,
                                                                        uint8_t *digest) {
  le::Sha256 hash;
  for (uint64_t done = 0; done < size; done += piece) {
    hash.update(data + done, std::min(piece, size - done));
  }
  std::ranges::copy(hash.finish(), digest);
}
