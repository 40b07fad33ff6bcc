"""What limits hold for inputs that no data has."""

from __future__ import annotations

import pytest

from libra_edge.catalog import load_recipe
from libra_edge.verification.inputs.examine import far_limits, noise_limits, word_limits
from libra_edge.verification.subject import rounds


def test_words_are_no_reason_for_wider_limits_where_nothing_is_rounded() -> None:
    limits = load_recipe("fp32").gates
    assert not rounds(limits)
    assert word_limits(limits) == limits


def test_words_are_judged_at_twice_the_limits_of_a_recipe_that_rounds() -> None:
    limits = load_recipe("int8").gates
    wider = word_limits(limits)
    assert rounds(limits)
    assert (wider.tokens, wider.action, wider.margin_percentile) == pytest.approx((0.96, 0.04, 10))


@pytest.mark.parametrize("recipe", ["fp32", "fp16", "int8"])
def test_far_from_the_data_limits_are_ten_times_as_wide_and_stay_limits(recipe: str) -> None:
    limits = load_recipe(recipe).gates
    far = far_limits(limits)
    assert far.tokens == pytest.approx(1 - 10 * (1 - limits.tokens))
    assert far.action == pytest.approx(10 * limits.action)
    assert far.margin_percentile is None or far.margin_percentile <= 50


@pytest.mark.parametrize("recipe", ["fp32", "fp16", "int8"])
def test_noise_bounds_the_tokens_that_rounding_turns_less_tightly(recipe: str) -> None:
    limits = load_recipe(recipe).gates
    far, noise = far_limits(limits), noise_limits(limits)
    assert noise.margin_percentile == (75 if rounds(limits) else None)
    assert noise.model_copy(update={"margin_percentile": far.margin_percentile}) == far
