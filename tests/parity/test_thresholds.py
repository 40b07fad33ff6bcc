"""The gates at their limits: equal, one step of a float below, one above."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from libra_edge.limits import Limits
from libra_edge.parity.gates import Outputs, compare, largest_differing_margin
from tests.parity.test_gates import DIMS, FP32, N, changed, differing_tokens, outputs

METRIC = "margin of differing tokens"


def around(value: float) -> tuple[float, float, float]:
    """One step of the value's type below, the value, one above."""
    kind = type(value)
    down, up = np.nextafter(value, kind(-np.inf)), np.nextafter(value, kind(np.inf))
    return float(down), float(value), float(up)


def at_limit(field: str, limit: float, reference: Outputs, candidate: Outputs) -> set[str]:
    """What fails where one limit is as given and every other as wide as it can be."""
    wide = {"tokens": 1e-9, "action": 1.0, "margin": 1e9}
    limits = Limits.model_validate(wide | {field: limit})
    checks = compare("stage", reference, candidate, DIMS, limits)
    return {check.metric for check in checks if check.verdict != "pass"}


def test_as_many_equal_tokens_as_the_limit_are_enough() -> None:
    reference, candidate = differing_tokens(1, 0.0)
    below, same, above = around(1.0 - 1 / reference.intent.size)
    assert at_limit("tokens", below, reference, candidate) == set()
    assert at_limit("tokens", same, reference, candidate) == set()
    assert at_limit("tokens", above, reference, candidate) == {"tokens equal"}
    assert at_limit("tokens", 1.0, reference, reference) == set()


def test_an_action_error_of_exactly_the_limit_passes() -> None:
    reference = changed(outputs(), "actions", (3, 2, 1), 0.0)
    candidate = changed(reference, "actions", (3, 2, 1), 25.0)
    below, same, above = around(0.25)
    metric = "action error / range"
    assert at_limit("action", below, reference, candidate) == {metric}
    assert at_limit("action", same, reference, candidate) == set()
    assert at_limit("action", above, reference, candidate) == set()


def test_a_margin_error_has_to_be_below_the_limit() -> None:
    reference = changed(outputs(), "margin", (0, 9, 0), 1.0)
    candidate = changed(reference, "margin", (0, 9, 0), 1.25)
    below, same, above = around(0.25)
    assert at_limit("margin", below, reference, candidate) == {"margin error"}
    assert at_limit("margin", same, reference, candidate) == {"margin error"}
    assert at_limit("margin", above, reference, candidate) == set()


def test_tokens_differ_only_below_the_margin_of_the_limit() -> None:
    reference, candidate = differing_tokens(1, 0.25)
    below, same, above = around(0.25)
    assert at_limit("margin", below, reference, candidate) == {METRIC}
    assert at_limit("margin", same, reference, candidate) == {METRIC}
    assert at_limit("margin", above, reference, candidate) == set()


@pytest.mark.parametrize(("step", "failed"), [(0, set()), (1, {METRIC}), (2, {METRIC})])
def test_a_percentile_of_the_margins_is_such_a_bound_too(step: int, failed: set[str]) -> None:
    # All margins but the differing token's are one, and so is their median.
    reference, candidate = differing_tokens(1, np.float32(around(np.float32(1.0))[step]))
    margin = np.where(reference.intent == candidate.intent, np.float32(1.0), reference.margin)
    limits = Limits(tokens=1e-9, action=1.0, margin_percentile=50)
    pair = (replace(one, margin=margin) for one in (reference, candidate))
    checks = compare("stage", *pair, DIMS, limits)
    assert {c.metric for c in checks if c.verdict != "pass"} == failed
    assert next(c.threshold for c in checks if c.metric == METRIC) == 1.0
    assert "margin error" not in {c.metric for c in checks}


def test_the_smaller_of_both_bounds_of_a_margin_counts() -> None:
    margins = np.arange(101, dtype=np.float32)
    both = Limits(tokens=0.5, action=1.0, margin=5.0, margin_percentile=10)
    assert largest_differing_margin(margins, both) == 5.0
    assert largest_differing_margin(margins, both.model_copy(update={"margin": 50.0})) == 10.0
    alone = Limits(tokens=0.5, action=1.0, margin=5.0)
    assert largest_differing_margin(margins, alone) == 5.0
    rounded = Limits(tokens=0.5, action=1.0, margin_percentile=5)
    assert largest_differing_margin(margins / 3, rounded) == 1.667, "four digits"


def test_a_percentile_of_action_errors_leaves_out_one_in_a_hundred() -> None:
    reference = outputs()
    actions = reference.actions.copy()
    actions[0, 0] += np.float32(0.04)
    limits = Limits(tokens=0.9, action=0.001, margin=1.0)
    candidate = replace(reference, actions=actions)
    hundred = {c.metric: c for c in compare("s", reference, candidate, DIMS, limits)}
    assert hundred["action error / range"].verdict == "fail"
    assert "max" not in hundred["action error / range"].note
    most = limits.model_copy(update={"action_percentile": 99})
    found = {c.metric: c for c in compare("s", reference, candidate, DIMS, most)}
    assert found["p99 action error / range"].verdict == "pass"
    assert found["p99 action error / range"].value == 0.0
    assert "max 4.0e-01" in found["p99 action error / range"].note


def test_samples_with_other_tokens_are_counted_and_not_compared() -> None:
    reference = outputs()
    used = reference.used.copy()
    used[0, 0, 0] += 1
    used[1, 4, 1] += 1
    checks = compare("s", reference, replace(reference, used=used), DIMS, FP32)
    action = next(c for c in checks if c.metric == "action error / range")
    assert action.samples == N - 2
    assert "2 samples with other tokens" in action.note
    (all_same,) = [
        c for c in compare("s", reference, reference, DIMS, FP32) if "action" in c.metric
    ]
    assert "left out" not in all_same.note
    assert all_same.samples == N
