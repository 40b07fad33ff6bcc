// ECDSA over P-256 with SHA-256, by Zig's standard library (p256.zig).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace le {

// An uncompressed point (SEC 1): 4, x, y.
using Point = std::array<uint8_t, 65>;

}  // namespace le

extern "C" {

// Whether it is a point of the curve.
bool libra_p256_is_point(const uint8_t *point);

// Whether `der` is the signature of the message by this key.
bool libra_p256_is_signature(const uint8_t *point, const uint8_t *message, size_t message_size,
                             const uint8_t *der, size_t der_size);
}
