// model.sig: who signed a release (OpenSSF Model Signing v1.0, docs/decisions/0100).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "release/manifest_table.h"
#include "release/trust.h"

namespace le {

struct Signer {
  std::string key_id, role;
};

// Who signed this manifest and every member that it names. Throws LE_MALFORMED where it is no
// signature of the standard (or what read_manifest throws), LE_INTEGRITY where it is not over these
// bytes, LE_UNPROVEN where the key is unknown, expired or not for robots like this one.
Signer check_signature(std::string_view manifest, std::string_view model_sig, const Trust &trust,
                       int64_t now_unix_s);

// The highest security epoch that was accepted of each key, by its id; "unsigned" is one too.
using Epochs = std::map<std::string, uint64_t>;

// The epochs once this one is accepted. Throws LE_UNPROVEN where the key has signed a higher one.
Epochs accept_epoch(const Epochs &epochs, const std::string &key_id, uint64_t epoch);

}  // namespace le
