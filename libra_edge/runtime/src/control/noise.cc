#include "control/noise.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

// Bit equality with NumPy holds only while every product is rounded before it is added: build with
// -ffp-contract=off, and change no order of operations here without
// libra_edge/policy/execution/noise.py.

namespace le {
namespace {

using Words = std::array<uint32_t, 4>;

struct Pair {
  double first, second;
};

constexpr double kLn2 = 0.6931471805599453;
constexpr double kSqrtHalf = 0.7071067811865476;
constexpr double kQuarterPi = 0.7853981633974483;
constexpr uint32_t kOctantBits = 29;

// Horner coefficients, highest power first.
constexpr double kAtanh[] = {1.0 / 23, 1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13,
                             1.0 / 11, 1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3,  1.0};
constexpr double kSin[] = {1.0 / 355687428096000.0,
                           -1.0 / 1307674368000.0,
                           1.0 / 6227020800.0,
                           -1.0 / 39916800.0,
                           1.0 / 362880.0,
                           -1.0 / 5040.0,
                           1.0 / 120.0,
                           -1.0 / 6.0,
                           1.0};
constexpr double kCos[] = {1.0 / 20922789888000.0,
                           -1.0 / 87178291200.0,
                           1.0 / 479001600.0,
                           -1.0 / 3628800.0,
                           1.0 / 40320.0,
                           -1.0 / 720.0,
                           1.0 / 24.0,
                           -1.0 / 2.0,
                           1.0};

Words philox4x32_10(Words x, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * x[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57} * x[2];
    x = {static_cast<uint32_t>(p1 >> 32) ^ x[1] ^ key0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ x[3] ^ key1, static_cast<uint32_t>(p0)};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return x;
}

template <size_t Count>
double horner(const double (&coefficients)[Count], double x) {
  double total = coefficients[0];
  for (size_t i = 1; i < Count; ++i) total = total * x + coefficients[i];
  return total;
}

double natural_log(double u) {
  int exponent;
  double m = std::frexp(u, &exponent);
  if (m < kSqrtHalf) {
    m = m * 2.0;
    exponent -= 1;
  }
  const double s = (m - 1.0) / (m + 1.0);
  return exponent * kLn2 + (2.0 * s) * horner(kAtanh, s * s);
}

// Cosine and sine of 2 pi word / 2^32, reduced exactly on the integer to [0, pi/4].
Pair cos_sin(uint32_t word) {
  const uint32_t octant = word >> kOctantBits;
  const uint32_t rest = word & ((1u << kOctantBits) - 1);
  const uint32_t reflected = octant & 1 ? (1u << kOctantBits) - rest : rest;
  const double angle = (reflected * 0x1p-29) * kQuarterPi;
  const double square = angle * angle;
  double cosine = horner(kCos, square);
  double sine = angle * horner(kSin, square);
  if ((octant + 1) & 2) std::swap(cosine, sine);
  if ((octant + 2) & 4) cosine = -cosine;
  if (octant >= 4) sine = -sine;
  return {cosine, sine};
}

Pair box_muller(uint32_t radius_word, uint32_t angle_word) {
  const double u = (static_cast<double>(radius_word) + 1.0) * 0x1p-32;
  const double radius = std::sqrt(-2.0 * natural_log(u));
  const auto [cosine, sine] = cos_sin(angle_word);
  return {radius * cosine, radius * sine};
}

}  // namespace

void chunk_noise(uint64_t seed, uint64_t chunk, float *noise, uint64_t count) {
  for (uint64_t done = 0; done < count; done += 4) {
    const Words x = philox4x32_10({static_cast<uint32_t>(done / 4), 0, static_cast<uint32_t>(chunk),
                                   static_cast<uint32_t>(chunk >> 32)},
                                  static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
    const Pair a = box_muller(x[0], x[1]);
    const Pair b = box_muller(x[2], x[3]);
    const double normals[4] = {a.first, a.second, b.first, b.second};
    const uint64_t filled = std::min<uint64_t>(4, count - done);
    for (uint64_t i = 0; i < filled; ++i) noise[done + i] = static_cast<float>(normals[i]);
  }
}

}  // namespace le
