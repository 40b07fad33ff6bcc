from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libra_edge.errors import InputError
from libra_edge.policy.actions import (
    Affine,
    affine_from_statistics,
    bin_centers,
    hold_action,
    to_tokens,
)
from tests.tiny import tiny_embodiment, tiny_statistics

bins = st.integers(2, 1000)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1), bins)
def test_tokens_follow_the_definition(actions: list[float], n: int) -> None:
    tokens = to_tokens(np.array(actions, np.float32), n)
    expected = [min(max(math.floor((a + 1) / 2 * n), 0), n - 1) for a in actions]
    assert tokens.tolist() == expected
    assert tokens.dtype == np.int32


@given(bins, st.data())
def test_centres_come_back_as_their_tokens(n: int, data: st.DataObject) -> None:
    token = data.draw(st.integers(0, n - 1))
    center = bin_centers(np.array([token]), n)
    assert to_tokens(center, n).tolist() == [token]
    assert abs(float(center[0])) < 1


@given(st.lists(st.floats(-1, 1, width=32), min_size=1), bins)
def test_a_bin_centre_is_at_most_half_a_bin_away(actions: list[float], n: int) -> None:
    values = np.array(actions, np.float32)
    error = np.abs(bin_centers(to_tokens(values, n), n) - values)
    assert error.max() <= 1 / n + 1e-6


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), bins)
def test_values_outside_fall_into_the_outer_bins(value: float, n: int) -> None:
    token = int(to_tokens(np.array([value], np.float32), n)[0])
    assert 0 <= token < n
    if value >= 1:
        assert token == n - 1
    if value < -1:
        assert token == 0


@pytest.mark.parametrize("kind", ["quantiles", "min_max", "mean_std", "identity"])
def test_normalization_round_trip(kind: str) -> None:
    affine = affine_from_statistics(kind, tiny_statistics()["action"], 3, "action")  # type: ignore[arg-type]
    physical = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    back = affine.denormalize(affine.normalize(physical))
    np.testing.assert_allclose(back, physical, atol=1e-6)


def test_quantiles_span_the_unit_range() -> None:
    statistics = tiny_statistics()["action"]
    affine = affine_from_statistics("quantiles", statistics, 3, "action")
    np.testing.assert_allclose(affine.normalize(np.array(statistics["q01"])), -1, atol=1e-6)
    np.testing.assert_allclose(affine.normalize(np.array(statistics["q99"])), 1, atol=1e-6)


def test_a_dimension_that_never_moves_keeps_a_finite_scale() -> None:
    affine = affine_from_statistics("min_max", {"min": [0.5], "max": [0.5]}, 1, "action")
    assert affine.normalize(np.array([0.5])).tolist() == [0.0]
    assert affine.denormalize(np.array([0.0])).tolist() == [0.5]


@pytest.mark.parametrize(
    "statistics", [{}, {"q01": [0.0, 0.0], "q99": [1.0]}, {"q01": [0.0], "q99": [math.nan]}]
)
def test_unusable_statistics_are_refused(statistics: dict[str, list[float]]) -> None:
    with pytest.raises(InputError, match="stats-invalid"):
        affine_from_statistics("quantiles", statistics, 1, "action")


def test_hold_keeps_absolute_dimensions_and_stops_deltas() -> None:
    last = np.array([0.3, 1.2, 0.7], np.float32)
    held = hold_action(tiny_embodiment().actions, last)
    np.testing.assert_array_equal(held, np.array([0.0, 1.2, 0.7], np.float32))


def test_affine_is_float32() -> None:
    affine = Affine(np.zeros(2, np.float32), np.ones(2, np.float32))
    assert affine.normalize(np.zeros((4, 2))).dtype == np.float32
