"""The gates every compiled stage has to pass: a metric, a threshold, N samples, a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from math import inf, isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.errors import LibraError, ParityError
from libra_edge.limits import Limits, Verdict
from libra_edge.parity.metrics import action_error, margin_error, token_agreement
from libra_edge.parity.on_demand import OnDemand
from libra_edge.parity.samples import Sample
from libra_edge.policy.config import ActionDim
from libra_edge.policy.executor import Engines

Array = npt.NDArray[Any]
# Names of the stages that more than one place compares.
NOT_FINITE = "not-finite"
# Rounding may tip a denoising loop over now and then, but never moves an action by half its range.
LARGEST_ERROR = 0.5
POLICY, FUSED, ENGINE, RUNTIME = "PyTorch policy", "fused", "engine", "C ABI"


@dataclass(frozen=True)
class Check:
    """One comparison and its verdict. `value` is NaN where nothing could be measured."""

    stage: str
    metric: str
    value: float
    threshold: float
    samples: int
    verdict: Verdict
    note: str = ""

    def to_json(self) -> dict[str, object]:
        """The fields as JSON knows numbers: what is not finite becomes null."""
        return {
            name: None if isinstance(value, float) and not isfinite(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Outputs:
    """What an engine pair gave on N samples.

    intent int32 and margin float32 [N, L, D]; actions float32 [N, H, D]; used: the tokens that the
    actions were made from, int32 [N, H, D].
    """

    intent: Array
    margin: Array
    actions: Array
    used: Array


def run_engines(
    engines: Engines, samples: Sequence[Sample], intents: Array | None = None
) -> Outputs:
    """Run planner and refiner on every sample.

    Args:
        engines: what to run.
        samples: at least one.
        intents: plans [N, L, D] that the refiner gets, or None for the planner's own.
    """
    plans = _plans(engines, samples)
    if not plans[0][0].size:
        plans = [(np.empty((0, 0), np.int32), np.empty((0, 0), np.float32))] * len(samples)
    intent = np.stack([plan[0] for plan in plans])
    used = _parts(intent if intents is None else intents, samples)
    made = [_refine(engines, s, part) for s, part in zip(samples, used, strict=True)]
    shape = next((one.shape for one in made if one is not None), samples[0].noise.shape)
    actions = [np.full(shape, np.nan, np.float32) if one is None else one for one in made]
    return Outputs(intent, np.stack([plan[1] for plan in plans]), np.stack(actions), used)


def _plans(engines: Engines, samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
    """Intent and margin of each sample; margins are NaN where the engines refuse to hand them out.

    Raises:
        LibraError: there is no plan at all.
    """
    plans: list[tuple[Array, Array] | None] = []
    refused: LibraError | None = None
    for sample in samples:
        try:
            plans.append(engines.plan(sample.images, sample.instruction, sample.state))
        except LibraError as error:
            if error.code != NOT_FINITE:
                raise
            plans.append(None)
            refused = error
    made = next((plan for plan in plans if plan is not None), None)
    if made is None:
        assert refused is not None
        raise refused
    nothing = np.zeros_like(made[0]), np.full_like(made[1], np.nan)
    return [nothing if plan is None else plan for plan in plans]


def _refine(engines: Engines, sample: Sample, intent: Array) -> Array | None:
    """The actions; None where the engines refuse to hand out what is not finite."""
    told = () if len(intent) else (sample.instruction,)
    try:
        return engines.refine(sample.images, sample.state, intent, sample.noise, *told)
    except LibraError as error:
        if error.code != NOT_FINITE:
            raise
        return None


def _parts(intents: Array, samples: Sequence[Sample]) -> Array:
    if intents.shape[1] == 0:
        return intents
    chunk = samples[0].noise.shape[0]
    return np.stack(
        [plan[s.part * chunk :][:chunk] for plan, s in zip(intents, samples, strict=True)]
    )


def compare(
    stage: str,
    reference: Outputs,
    candidate: Outputs,
    dims: Sequence[ActionDim],
    limits: Limits,
) -> list[Check]:
    """Judge one stage against the one before it.

    Actions are compared where both refiners were given the same tokens; how many samples that
    leaves is part of the check, and the tokens are judged by themselves.
    """
    same = (reference.used == candidate.used).all(axis=(1, 2))
    actions = action_error(reference.actions[same], candidate.actions[same], dims)
    finite = np.isfinite(candidate.margin).all() and np.isfinite(candidate.actions).all()
    count, compared = len(same), int(same.sum())
    note = f"p50 {actions.p50:.1e}, p99 {actions.p99:.1e}"
    if compared < count:
        note += f"; {count - compared} samples with other tokens left out"
    percentile = limits.action_percentile
    error = actions.max if percentile == 100 else actions.p99
    if percentile != 100:
        note += f", max {actions.max:.1e}"
    checks = [Check(stage, "finite", float(finite), 1.0, count, _verdict(bool(finite)))]
    if reference.intent.size:
        checks += _token_checks(stage, reference, candidate, limits)
    passed = _verdict(error <= limits.action)
    metric = "action error / range" if percentile == 100 else "p99 action error / range"
    checks.append(Check(stage, metric, error, limits.action, compared, passed, note))
    return checks


def _token_checks(
    stage: str, reference: Outputs, candidate: Outputs, limits: Limits
) -> list[Check]:
    """What the planner's tokens and margins come to."""
    tokens = token_agreement(reference.intent, reference.margin, candidate.intent)
    count, equal, margin = len(reference.intent), tokens.agreement, tokens.largest_margin
    shift = margin_error(reference.margin, candidate.margin)
    differing = f"{tokens.different} of {tokens.tokens} tokens differ"
    sure = largest_differing_margin(reference.margin, limits)
    checks = [
        Check(stage, "tokens equal", equal, limits.tokens, count, _verdict(equal >= limits.tokens)),
        Check(
            stage,
            "margin of differing tokens",
            margin,
            sure,
            count,
            _verdict(margin < sure),
            differing,
        ),
    ]
    if limits.margin is not None:
        passed = _verdict(shift < limits.margin)
        checks.append(Check(stage, "margin error", shift, limits.margin, count, passed))
    return checks


def largest_error(
    stage: str, reference: Outputs, candidate: Outputs, dims: Sequence[ActionDim], limits: Limits
) -> list[Check]:
    """Cap the one largest error where the gate is for a percentile; else that gate is the cap."""
    if limits.action_percentile == 100:
        return []
    same = (reference.used == candidate.used).all(axis=(1, 2))
    error = action_error(reference.actions[same], candidate.actions[same], dims).max
    passed = _verdict(error <= LARGEST_ERROR)
    return [
        Check(stage, "largest action error / range", error, LARGEST_ERROR, int(same.sum()), passed)
    ]


def largest_differing_margin(margins: Array, limits: Limits) -> float:
    """The bound of the margins at which tokens may differ, of margins [..., L, D] in logits."""
    bound = inf if limits.margin is None else limits.margin
    if limits.margin_percentile is None:
        return bound
    # Four digits: the bound goes into the manifest, whose bytes any machine would repeat.
    return min(bound, float(f"{np.percentile(margins, limits.margin_percentile):.4g}"))


def compare_chain(
    chain: Sequence[tuple[str, Engines]],
    samples: Sequence[Sample],
    dims: Sequence[ActionDim],
    limits: Limits,
    on_stage: Callable[[str], None] = lambda _: None,
    first: Outputs | None = None,
) -> list[Check]:
    """Hold every stage against the one before it.

    Every refiner gets the first planner's intents, so that one stage's error does not hide in
    another's.

    Args:
        chain: names and engines in the order the data flows.
        samples: what to run them on.
        dims: the action dimensions.
        limits: the thresholds.
        on_stage: called with a comparison's name before it is made.
        first: what the first of the chain gave, where that is known; None runs it.
    """
    checks: list[Check] = []
    (before_name, first_engines), *others = chain
    first = before = first or run_engines(first_engines, samples)
    for name, engines in others:
        stage = f"{name} vs {before_name}"
        on_stage(stage)
        outputs = run_engines(engines, samples, first.intent)
        if isinstance(engines, OnDemand):
            engines.unload()
        checks += compare(stage, before, outputs, dims, limits)
        before, before_name = outputs, name
    return checks


def compare_end_to_end(
    first: tuple[str, Engines],
    last: tuple[str, Engines],
    samples: Sequence[Sample],
    dims: Sequence[ActionDim],
    limits: Limits,
    on_stage: Callable[[str], None] = lambda _: None,
) -> list[Check]:
    """Hold what a robot runs against what was trained, each refiner after its own planner."""
    stage = end_to_end(last[0], first[0])
    on_stage(stage)
    reference, candidate = (run_engines(engines, samples) for _, engines in (first, last))
    return compare(stage, reference, candidate, dims, limits)


def compare_edges(name: str, engines: Engines, samples: Sequence[Sample], bins: int) -> list[Check]:
    """Numbers and tokens must stay numbers and tokens, whatever a camera or sensor sends."""
    found = run_engines(engines, samples)
    finite = bool(np.isfinite(found.margin).all() and np.isfinite(found.actions).all())
    tokens = bool(((found.intent >= 0) & (found.intent < bins)).all())
    stage, count = f"{name} on edge observations", len(samples)
    return [
        Check(stage, "finite", float(finite), 1.0, count, _verdict(finite)),
        Check(stage, "tokens are intents", float(tokens), 1.0, count, _verdict(tokens)),
    ]


def end_to_end(last: str, first: str) -> str:
    """Name of the comparison over the whole chain."""
    return f"{last} vs {first}, end to end"


def not_measured(stage: str, reason: str) -> Check:
    """A comparison that could not be made; it never counts as passed."""
    return Check(stage, "all", np.nan, np.nan, 0, "not measured", reason)


def require_pass(checks: Iterable[Check]) -> None:
    """Refuse to go on unless every check passed.

    Raises:
        ParityError: one did not; names the first.
    """
    failed = [check for check in checks if check.verdict != "pass"]
    if failed:
        first = failed[0]
        raise ParityError(
            "parity-failed",
            f"{first.stage}: {first.metric} is {first.value:.3g} on {first.samples} samples, "
            f"the gate is {first.threshold:g} ({len(failed)} checks failed).",
            "Nothing was released. A recipe that rounds too much for this policy: add "
            "--auto-precision, or see `libra-edge sensitivity`. Otherwise the checkpoint is not "
            "the one that was compiled, or this is a bug in libra-edge: report it with the "
            "checkpoint.",
        )


def _verdict(passed: bool) -> Verdict:
    return "pass" if passed else "fail"
