// Base64 (RFC 4648) in its one form: standard alphabet, padded, no line breaks, unused bits zero.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace le {

std::string to_base64(std::string_view bytes);

// Nothing for any other text.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace le
