"""Metrics and gates: what passes, and above all what does not."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from libra_edge.catalog import load_recipe
from libra_edge.errors import ExitCode, LibraError, ParityError
from libra_edge.parity.gates import (
    Check,
    Outputs,
    compare,
    compare_chain,
    compare_edges,
    compare_end_to_end,
    not_measured,
    require_pass,
    run_engines,
)
from libra_edge.parity.metrics import action_error, token_agreement
from libra_edge.parity.samples import Sample
from libra_edge.policy.config import ActionDim
from libra_edge.report.junit import junit_xml

DIMS = (
    ActionDim(name="small", unit="m", kind="delta", lower=-0.05, upper=0.05),
    ActionDim(name="large", unit="m", kind="absolute", lower=-50.0, upper=50.0),
)
FP32 = load_recipe("fp32").gates
N, L, H = 50, 10, 5


def outputs(seed: int = 0) -> Outputs:
    random = np.random.default_rng(seed)
    intent = random.integers(0, 10, (N, L, 2), dtype=np.int32)
    margin = random.uniform(0.5, 2, (N, L, 2)).astype(np.float32)
    actions = random.uniform(-0.05, 0.05, (N, H, 2)).astype(np.float32)
    return Outputs(intent, margin, actions, intent[:, :H])


def verdicts(reference: Outputs, candidate: Outputs) -> dict[str, str]:
    return {c.metric: c.verdict for c in compare("stage", reference, candidate, DIMS, FP32)}


def failing(reference: Outputs, candidate: Outputs) -> set[str]:
    found = verdicts(reference, candidate)
    return {metric for metric, verdict in found.items() if verdict != "pass"}


def changed(outputs: Outputs, field: str, index: tuple[int, ...], value: float) -> Outputs:
    array = getattr(outputs, field).copy()
    array[index] = value
    return replace(outputs, **{field: array})


def test_equal_outputs_pass() -> None:
    assert failing(outputs(), outputs()) == set()
    assert len(verdicts(outputs(), outputs())) == 5
    (finite, *_) = compare("stage", outputs(), outputs(), DIMS, FP32)
    assert (finite.metric, finite.value, finite.threshold) == ("finite", 1.0, 1.0)


def test_errors_are_judged_by_each_dimensions_range() -> None:
    reference = changed(outputs(), "actions", (3, 2, 0), 0.0)
    assert failing(reference, changed(reference, "actions", (3, 2, 0), 0.9e-5)) == set()
    assert failing(reference, changed(reference, "actions", (3, 2, 0), 1.1e-5)) == {
        "action error / range"
    }
    reference = changed(reference, "actions", (3, 2, 1), 0.0)
    assert failing(reference, changed(reference, "actions", (3, 2, 1), 0.9e-2)) == set()
    assert failing(reference, changed(reference, "actions", (3, 2, 1), 1.1e-2)) == {
        "action error / range"
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails(value: float) -> None:
    bad = changed(outputs(), "actions", (0, 0, 0), value)
    assert failing(outputs(), bad) == {"finite", "action error / range"}
    assert "action error / range" in failing(bad, outputs())
    bad = changed(outputs(), "margin", (0, 9, 0), value)
    assert failing(outputs(), bad) == {"finite", "margin error"}


def differing_tokens(count: int, margin: float) -> tuple[Outputs, Outputs]:
    """Outputs that differ in `count` tokens past the first chunk, at this margin."""
    reference = outputs()
    margins, intent = reference.margin.copy(), reference.intent.copy()
    for i in range(count):
        margins[i, L - 1, 0] = margin
        intent[i, L - 1, 0] = (intent[i, L - 1, 0] + 1) % 10
    reference = replace(reference, margin=margins)
    return reference, replace(reference, intent=intent)


def test_tokens_may_differ_rarely_and_only_where_the_policy_was_undecided() -> None:
    assert failing(*differing_tokens(1, 0.0009)) == set()
    assert failing(*differing_tokens(1, 0.0011)) == {"margin of differing tokens"}
    assert failing(*differing_tokens(2, 0.0009)) == {"tokens equal"}


def test_a_margin_that_is_not_finite_never_excuses_a_token() -> None:
    assert "margin of differing tokens" in failing(*differing_tokens(1, np.nan))


def test_a_planner_that_is_off_is_found_before_a_token_flips() -> None:
    reference = changed(outputs(), "margin", (0, 9, 0), 1.0)
    assert failing(reference, changed(reference, "margin", (0, 9, 0), 1.0009)) == set()
    assert failing(reference, changed(reference, "margin", (0, 9, 0), 1.0011)) == {"margin error"}


def test_actions_of_other_tokens_are_left_out_and_said_to_be() -> None:
    reference = outputs()
    candidate = changed(changed(reference, "used", (0, 0, 0), 99), "actions", (0, 0, 0), 0.04)
    checks = {c.metric: c for c in compare("stage", reference, candidate, DIMS, FP32)}
    action = checks["action error / range"]
    assert (action.verdict, action.samples) == ("pass", N - 1)
    assert "1 samples with other tokens left out" in action.note


def test_nothing_to_compare_is_not_a_pass() -> None:
    reference = outputs()
    candidate = replace(reference, used=reference.used + 1)
    assert failing(reference, candidate) == {"action error / range"}


def test_metrics() -> None:
    reference = np.array([[0.0, 0.0], [0.01, 5.0]], dtype=np.float32)
    error = action_error(reference, reference + np.float32(0.001), DIMS)
    assert error.max == pytest.approx(0.01, rel=1e-4)
    assert error.p50 == pytest.approx((0.01 + 1e-5) / 2, rel=1e-2)
    tokens = np.array([1, 2, 3, 4])
    agreement = token_agreement(tokens, np.array([9.0, 8.0, 0.25, 7.0]), np.array([1, 2, 4, 4]))
    assert (agreement.agreement, agreement.different) == (0.75, 1)
    assert agreement.largest_margin == 0.25


class Fixed:
    """Engines that plan `token` everywhere and act by `shift`."""

    def __init__(self, token: int = 0, shift: float = 0.0) -> None:
        self._token, self._shift = token, shift

    def plan(self, images, instruction, state):
        return np.full((L, 2), self._token, np.int32), np.ones((L, 2), np.float32)

    def refine(self, images, state, intent, noise):
        return (intent * 0.01 + self._shift).astype(np.float32)


def samples() -> list[Sample]:
    image, noise = np.zeros((1, 2, 2, 3), np.uint8), np.zeros((H, 2), np.float32)
    words, state = np.zeros(3, np.int64), np.zeros(2, np.float32)
    return [Sample(image, words, state, noise, part=i % 2) for i in range(4)]


def test_a_chain_finds_the_stage_that_is_wrong() -> None:
    chain = [("a", Fixed()), ("b", Fixed()), ("c", Fixed(shift=0.01)), ("d", Fixed(shift=0.01))]
    told: list[str] = []
    checks = compare_chain(chain, samples(), DIMS, FP32, told.append)
    assert told == ["b vs a", "c vs b", "d vs c"]
    assert {c.stage for c in checks if c.verdict == "fail"} == {"c vs b"}
    with pytest.raises(ParityError, match="c vs b"):
        require_pass(checks)


def test_a_wrong_planner_does_not_hide_in_its_refiner() -> None:
    checks = compare_chain([("a", Fixed()), ("b", Fixed(token=1))], samples(), DIMS, FP32)
    failed = {c.metric for c in checks if c.verdict == "fail"}
    assert failed == {"tokens equal", "margin of differing tokens"}
    told: list[str] = []
    pair = ("a", Fixed()), ("b", Fixed(token=1))
    end = compare_end_to_end(*pair, samples(), DIMS, FP32, told.append)
    assert told == ["b vs a, end to end"]
    assert "action error / range" in {c.metric for c in end if c.verdict == "fail"}


def test_the_gate_names_the_failure_and_its_exit_code() -> None:
    bad = Check("exported vs split", "finite", 0.0, 1.0, 32, "fail")
    good = Check("split", "finite", 1.0, 1.0, 32, "pass")
    require_pass([good])
    with pytest.raises(ParityError, match="exported vs split: finite is 0 on 32") as caught:
        require_pass([good, bad])
    assert caught.value.exit_code is ExitCode.PARITY
    with pytest.raises(ParityError):
        require_pass([good, not_measured("runtime", "no such machine")])


def test_junit_counts_what_was_not_measured_as_an_error() -> None:
    checks = [
        Check("a & b", "finite", 1.0, 1.0, 8, "pass"),
        Check("b", "tokens <equal>", 0.5, 0.999, 8, "fail", "4 of 8"),
        not_measured("c", "no checkpoint was given"),
    ]
    root = ElementTree.fromstring(junit_xml("suite", checks))
    assert root.attrib | {"tests": "3", "failures": "1", "errors": "1"} == root.attrib
    assert [len(case.findall("failure")) for case in root] == [0, 1, 0]
    assert "no checkpoint was given" in root[2].find("error").attrib["message"]


def test_json_has_no_numbers_that_json_does_not_know() -> None:
    assert not_measured("c", "why").to_json()["value"] is None
    assert not_measured("c", "why").samples == 0
    assert Check("b", "m", 0.5, 1.0, 8, "fail").to_json()["value"] == 0.5


class Given(Fixed):
    """Engines with these tokens, margins and actions."""

    def __init__(self, tokens: tuple[int, ...] = (0,), margin: float = 1.0, action: float = 0.0):
        self._tokens, self._margin, self._action = tokens, margin, action

    def plan(self, images, instruction, state):
        tokens = np.resize(np.array(self._tokens, np.int32), (L, 2))
        return tokens, np.full((L, 2), self._margin, np.float32)

    def refine(self, images, state, intent, noise):
        return np.full((H, 2), self._action, np.float32)


@pytest.mark.parametrize(
    ("engines", "failed"),
    [
        (Given((0, 9)), set()),
        (Given((0, 10)), {"tokens are intents"}),
        (Given((-1, 9)), {"tokens are intents"}),
        (Given((-1, 10)), {"tokens are intents"}),
        (Given(margin=np.nan), {"finite"}),
        (Given(action=np.inf), {"finite"}),
        (Given((10,), action=-np.inf), {"finite", "tokens are intents"}),
    ],
)
def test_edges_hold_at_both_ends_of_the_bins(engines: Given, failed: set[str]) -> None:
    checks = compare_edges("engine", engines, samples(), bins=10)
    assert {c.metric for c in checks if c.verdict == "fail"} == failed
    assert {(c.stage, c.samples) for c in checks} == {("engine on edge observations", 4)}
    assert {c.value for c in checks if c.verdict == "fail"} <= {0.0}
    assert {c.threshold for c in checks} == {1.0}


def test_one_number_that_is_none_is_enough() -> None:
    class Once(Given):
        def plan(self, images, instruction, state):
            tokens, margin = super().plan(images, instruction, state)
            margin[L - 1, 1] = self._margin
            return tokens, np.where(np.arange(L * 2).reshape(L, 2) == L * 2 - 1, margin, 1.0)

        def refine(self, images, state, intent, noise):
            actions = np.zeros((H, 2), np.float32)
            actions[H - 1, 1] = self._action
            return actions

    for engines in (Once(margin=np.nan), Once(action=np.nan)):
        finite, tokens = compare_edges("engine", engines, samples(), bins=10)
        assert (finite.verdict, tokens.verdict) == ("fail", "pass")


class Refusing(Fixed):
    """Engines that refuse to hand out what is not finite, from one call on."""

    def __init__(self, code: str, *, plans: int = 99, actions: int = 99) -> None:
        super().__init__()
        self._code, self._plans, self._actions = code, plans, actions

    def plan(self, images, instruction, state):
        self._plans -= 1
        if self._plans < 0:
            raise LibraError(self._code, "It is not.", "Find out why.")
        return super().plan(images, instruction, state)

    def refine(self, images, state, intent, noise):
        self._actions -= 1
        if self._actions < 0:
            raise LibraError(self._code, "It is not.", "Find out why.")
        return super().refine(images, state, intent, noise)


def test_engines_that_refuse_are_measured_as_not_finite_sample_by_sample() -> None:
    found = run_engines(Refusing("not-finite", plans=3, actions=2), samples())
    assert np.isfinite(found.margin).all(axis=(1, 2)).tolist() == [True, True, True, False]
    assert np.isfinite(found.actions).all(axis=(1, 2)).tolist() == [True, True, False, False]
    assert (found.intent[3] == 0).all()
    assert found.intent.dtype == np.int32


@pytest.mark.parametrize(
    "engines",
    [
        Refusing("not-finite", plans=0),
        Refusing("engine", plans=2),
        Refusing("engine", actions=2),
    ],
)
def test_any_other_refusal_and_no_plan_at_all_are_errors(engines: Refusing) -> None:
    with pytest.raises(LibraError, match=r"It is not\."):
        run_engines(engines, samples())


def test_every_sample_is_refined_on_its_own_part_of_the_plan() -> None:
    plans = np.arange(4 * L * 2, dtype=np.int32).reshape(4, L, 2)
    found = run_engines(Fixed(), samples(), plans)
    for i, part in enumerate((0, 1, 0, 1)):
        assert (found.used[i] == plans[i, part * H : (part + 1) * H]).all()
    assert (found.intent == 0).all(), "the planner's own"


def test_a_first_stage_that_is_known_is_not_run_again() -> None:
    known = run_engines(Fixed(), samples())
    checks = compare_chain(
        [("a", Refusing("engine", plans=0)), ("b", Fixed())], samples(), DIMS, FP32, first=known
    )
    assert {c.verdict for c in checks} == {"pass"}
