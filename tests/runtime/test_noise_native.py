"""The C++ noise is Python's, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libra_edge.binding import abi
from libra_edge.binding.library import load_library
from libra_edge.policy.execution.noise import chunk_noise

WORD = st.integers(0, 2**64 - 1)


def drawn(library: Path, seed: int, chunk: int, count: int) -> np.ndarray:
    noise = np.empty(count, dtype=np.float32)
    loaded = load_library(library)
    assert loaded.le_noise(seed, chunk, noise.ctypes.data, count) == abi.OK
    return noise


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=WORD, chunk=WORD, count=st.integers(0, 70))
def test_equal_for_any_seed_and_chunk(library: Path, seed: int, chunk: int, count: int) -> None:
    python = chunk_noise(seed, chunk, (count,))
    assert drawn(library, seed, chunk, count).tobytes() == python.tobytes()


def test_equal_over_a_long_stream(library: Path) -> None:
    python = chunk_noise(2024, 3, (400_000,))
    assert drawn(library, 2024, 3, 400_000).tobytes() == python.tobytes()


@pytest.mark.parametrize(("pointer", "count"), [(None, 1), (8, 2**32 + 1)])
def test_refuses_bad_arguments(library: Path, pointer: int | None, count: int) -> None:
    status = load_library(library).le_noise(0, 0, pointer, count)
    assert status == abi.INVALID_ARGUMENT
