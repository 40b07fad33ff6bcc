from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from libra_edge.policy.execution import noise
from libra_edge.policy.execution.noise import chunk_noise, philox4x32_10

WORD = st.integers(0, 2**64 - 1)
ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert tuple(int(word) for word in philox4x32_10(counter, key)) == expected


def test_layout_of_counter_key_and_normals() -> None:
    seed, chunk = 0x0123456789ABCDEF, 0xFEDCBA9876543210
    expected = []
    for block in range(2):
        x = philox4x32_10((block, 0, 0x76543210, 0xFEDCBA98), (0x89ABCDEF, 0x01234567))
        for u, v in ((x[0], x[1]), (x[2], x[3])):
            radius = math.sqrt(-2 * math.log((int(u) + 1) / 2**32))
            angle = 2 * math.pi * int(v) / 2**32
            expected += [radius * math.cos(angle), radius * math.sin(angle)]
    np.testing.assert_allclose(chunk_noise(seed, chunk, (8,)), expected, rtol=1e-6, atol=1e-9)


def test_the_bits_never_change() -> None:
    drawn = chunk_noise(42, 7, (2, 3)).view(np.uint32)
    assert [hex(word) for word in drawn.reshape(-1)] == GOLDEN_BITS


GOLDEN_BITS = ["0x3f8856dd", "0xbf51494d", "0xbf289034", "0x3f9101bf", "0xbea841a0", "0x3ea7c2c6"]


def test_is_standard_normal() -> None:
    drawn = chunk_noise(1, 0, (200_000,)).astype(np.float64)
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01
    # The test can fail: a hundredth of a standard deviation is seen.
    assert stats.kstest(drawn + 0.01, "norm").pvalue < 1e-3


def test_elementary_functions_are_accurate() -> None:
    rng = np.random.default_rng(0)
    edges = np.arange(0, 2**32, 2**26, dtype=np.uint64)
    words = np.concatenate([rng.integers(0, 2**32, 50_000, dtype=np.uint64), edges, edges + 1])
    words = np.concatenate([words, np.uint64(2**32 - 1) - np.arange(4, dtype=np.uint64)])
    cosine, sine = noise._cos_sin(words)
    angle = words.astype(np.float64) * (2 * np.pi / 2**32)
    np.testing.assert_allclose(cosine, np.cos(angle), rtol=0, atol=2e-15)
    np.testing.assert_allclose(sine, np.sin(angle), rtol=0, atol=2e-15)
    u = (words + np.uint64(1)).astype(np.float64) * 2.0**-32
    np.testing.assert_allclose(noise._log(u), np.log(u), rtol=2e-15)


@given(WORD, WORD, st.integers(0, 40), st.integers(0, 40))
def test_a_prefix_is_the_same_whatever_the_length(
    seed: int, chunk: int, short: int, more: int
) -> None:
    whole = chunk_noise(seed, chunk, (short + more,))
    assert whole.dtype == np.float32
    assert np.isfinite(whole).all()
    np.testing.assert_array_equal(chunk_noise(seed, chunk, (short,)), whole[:short])


@given(WORD, WORD, st.integers(1, 6), st.integers(1, 6))
def test_shape_only_folds_the_stream(seed: int, chunk: int, rows: int, columns: int) -> None:
    flat = chunk_noise(seed, chunk, (rows * columns,))
    np.testing.assert_array_equal(chunk_noise(seed, chunk, (rows, columns)).reshape(-1), flat)


@given(WORD, WORD, WORD)
def test_other_seed_or_chunk_gives_other_noise(seed: int, chunk: int, other: int) -> None:
    drawn = chunk_noise(seed, chunk, (4,))
    assert (other == seed) == bool(np.array_equal(drawn, chunk_noise(other, chunk, (4,))))
    assert (other == chunk) == bool(np.array_equal(drawn, chunk_noise(seed, other, (4,))))


@pytest.mark.parametrize(("seed", "chunk"), [(-1, 0), (0, -1), (2**64, 0), (0, 2**64)])
def test_numbers_outside_64_bits_are_refused(seed: int, chunk: int) -> None:
    with pytest.raises(ValueError, match="unsigned 64-bit"):
        chunk_noise(seed, chunk, (1,))
