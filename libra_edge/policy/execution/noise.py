"""The refiner's noise: counter-based, so that every run can be replayed exactly.

Philox4x32-10 (Salmon et al., SC11), then Box-Muller. The C++ runtime draws the same bits: the
logarithm and the circular functions are spelt out in IEEE double operations, in one fixed order,
because the mathematical libraries of two machines round differently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ROUNDS = 10
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)

_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
_QUARTER_PI = 0.7853981633974483
_OCTANT_BITS = 29
# Horner coefficients, highest power first; each is one correctly rounded division.
_ATANH = [1.0 / n for n in range(23, 0, -2)]
_SIN = [(-1) ** k / math.factorial(2 * k + 1) for k in range(8, -1, -1)]
_COS = [(-1) ** k / math.factorial(2 * k) for k in range(8, -1, -1)]


def philox4x32_10(counter: Sequence[Any], key: tuple[int, int]) -> list[Words]:
    """Ten rounds of Philox4x32.

    Args:
        counter: four 32-bit words, each a number or an array (broadcast against each other).
        key: two 32-bit words.

    Returns:
        Four arrays of 32-bit words (held in uint64).
    """
    x0, x1, x2, x3 = np.broadcast_arrays(*(np.asarray(word, dtype=np.uint64) for word in counter))
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    for _ in range(_ROUNDS):
        p0, p1 = _MULTIPLIER_0 * x0, _MULTIPLIER_1 * x2
        x0, x1, x2, x3 = (p1 >> _HALF) ^ x1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ x3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW
    return [x0, x1, x2, x3]


def _horner(coefficients: Sequence[float], x: Doubles) -> Doubles:
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def _log(u: Doubles) -> Doubles:
    """Natural logarithm of u in (0, 1]: ln(m * 2^e) = e ln 2 + 2 atanh((m - 1) / (m + 1))."""
    mantissa, exponent = np.frexp(u)
    small = mantissa < _SQRT_HALF
    m = np.where(small, mantissa * 2.0, mantissa)
    e = np.where(small, exponent - 1, exponent).astype(np.float64)
    s = (m - 1.0) / (m + 1.0)
    return np.asarray(e * _LN2 + (2.0 * s) * _horner(_ATANH, s * s))


def _cos_sin(word: Words) -> tuple[Doubles, Doubles]:
    """Cosine and sine of 2π * word / 2^32, reduced exactly on the integer to [0, π/4]."""
    octant = word >> np.uint64(_OCTANT_BITS)
    rest = word & np.uint64(2**_OCTANT_BITS - 1)
    reflected = np.where(octant & np.uint64(1), np.uint64(2**_OCTANT_BITS) - rest, rest)
    angle = (reflected.astype(np.float64) * 2.0**-_OCTANT_BITS) * _QUARTER_PI
    square = angle * angle
    cosine, sine = _horner(_COS, square), angle * _horner(_SIN, square)
    swap = ((octant + np.uint64(1)) & np.uint64(2)) != 0
    cosine, sine = np.where(swap, sine, cosine), np.where(swap, cosine, sine)
    left = ((octant + np.uint64(2)) & np.uint64(4)) != 0
    below = octant >= 4
    return np.where(left, -cosine, cosine), np.where(below, -sine, sine)


def _box_muller(radius_word: Words, angle_word: Words) -> tuple[Doubles, Doubles]:
    """Two standard normals from two 32-bit words."""
    radius = np.sqrt(-2.0 * _log((radius_word + np.uint64(1)).astype(np.float64) * 2.0**-32))
    cosine, sine = _cos_sin(angle_word)
    return radius * cosine, radius * sine


def chunk_noise(seed: int, chunk: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Standard normal noise of one chunk.

    Args:
        seed: 64-bit seed of the episode.
        chunk: 64-bit number of the chunk since reset.
        shape: usually [H, D], filled row by row.

    Returns:
        float32 array of `shape`.
    """
    for name, value in (("seed", seed), ("chunk", chunk)):
        if not 0 <= value < 2**64:
            raise ValueError(f"{name} {value} is not an unsigned 64-bit number")
    count = math.prod(shape)
    blocks = np.arange(-(-count // 4), dtype=np.uint64)
    counter = (blocks, 0, chunk & 0xFFFFFFFF, chunk >> 32)
    x0, x1, x2, x3 = philox4x32_10(counter, (seed & 0xFFFFFFFF, seed >> 32))
    normals = np.stack([*_box_muller(x0, x1), *_box_muller(x2, x3)], axis=-1)
    return normals.reshape(-1)[:count].reshape(shape).astype(np.float32)
