"""The release against the policy on inputs that data does not hold, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from libra_edge.limits import Limits
from libra_edge.parity.gates import (
    ENGINE,
    POLICY,
    RUNTIME,
    Check,
    compare,
    compare_edges,
    run_engines,
)
from libra_edge.parity.samples import Sample, edge_samples
from libra_edge.policy.executor import Engines
from libra_edge.verification.comparison import GRAPHS
from libra_edge.verification.inputs.words import left_over, word_inputs
from libra_edge.verification.subject import Subject, rounds

if TYPE_CHECKING:
    from libra_edge.policy.imported import AnyCheckpoint

# Inputs up to ten standard deviations away are ten times as large as those that gates are made
# for, and rounding is relative to what is rounded.
FARTHEST = 10.0
# Instructions without a meaning, over pictures as they should be.
NONSENSE = 2.0
# In noise a planner is hardly sure of anything, and the margins that bound the tokens which
# rounding may turn are small: on the demo the surest one that int8-smoothquant turns stands at the
# 57th percentile, where 5 is the limit for observations as they should be.
NOISE = 15.0
EDGES, MADE_UP, WORDS = "edge inputs", "made-up observations", "every word"


def examine_inputs(subject: Subject) -> list[Check]:
    """Words, odd pictures and odd states; without the checkpoint only whether they give numbers."""
    name, engines = _last(subject)
    if engines is None:
        return []
    subject.on_stage("edge observations")
    truth, seed = subject.truth, subject.request.seed
    edges = edge_samples(subject.body, subject.contract, subject.tokenizer, seed)
    checks = compare_edges(name, engines, edges, subject.bins)
    if truth is None or not subject.samples:
        return checks
    from libra_edge.evaluation.torch_controller import torch_engines

    reference = torch_engines(truth.policy)
    pairs = _pairs(subject, truth, edges)
    for what, (samples, limits) in pairs.items():
        if not samples:
            continue
        stage = f"{name} vs {POLICY}, {what}"
        subject.on_stage(stage)
        checks += _compared(stage, reference, engines, samples, limits, subject)
    if truth.tokenizer is not None and (missing := left_over(truth.tokenizer)):
        subject.left_out.append(f"{missing} words of the vocabulary")
    return checks


def _pairs(
    subject: Subject, truth: AnyCheckpoint, edges: Sequence[Sample]
) -> dict[str, tuple[Sequence[Sample], Limits]]:
    """What is compared as numbers, and under which limits."""
    from libra_edge.policy.checkpoint import Checkpoint
    from libra_edge.verification.inputs.edges import edge_inputs

    seed, limits = subject.request.seed, subject.limits
    found: dict[str, tuple[Sequence[Sample], Limits]] = {}
    if truth.tokenizer is not None:
        words = word_inputs(truth.tokenizer, subject.samples, seed)
        found[WORDS] = (words, word_limits(limits))
    found[MADE_UP] = (subject.made_up, noise_limits(limits))
    if isinstance(truth, Checkpoint):
        edges = edge_inputs(truth, subject.samples[0])
    return found | {EDGES: (edges, far_limits(limits))}


def far_limits(limits: Limits) -> Limits:
    """The limits far from where the policy was trained."""
    return _wider(limits, FARTHEST)


def noise_limits(limits: Limits) -> Limits:
    """The limits for made-up observations, where rounding is meant: far, and less sure."""
    far, percentile = far_limits(limits), limits.margin_percentile
    if percentile is None:
        return far
    return far.model_copy(update={"margin_percentile": min(NOISE * percentile, 90.0)})


def word_limits(limits: Limits) -> Limits:
    """The limits for random words: wider where rounding is meant, which calibration fits to data.

    A policy is less sure of nonsense, so the margins that bound its tokens are smaller.
    """
    return _wider(limits, NONSENSE) if rounds(limits) else limits


def _wider(limits: Limits, times: float) -> Limits:
    percentile = limits.margin_percentile
    return Limits(
        tokens=max(1 - times * (1 - limits.tokens), 0.5),
        action=min(times * limits.action, 1.0),
        action_percentile=limits.action_percentile,
        margin=None if limits.margin is None else times * limits.margin,
        margin_percentile=None if percentile is None else min(times * percentile, 100.0),
    )


def _last(subject: Subject) -> tuple[str, Engines | None]:
    """What a robot would run, as far as it runs here."""
    if (runtime := subject.runtime()) is not None:
        return RUNTIME, runtime
    if (engines := subject.engines()) is not None:
        return ENGINE, engines
    return GRAPHS, subject.graphs()


def _compared(
    stage: str,
    reference: Engines,
    engines: Engines,
    samples: Sequence[Sample],
    limits: Limits,
    subject: Subject,
) -> list[Check]:
    wanted = run_engines(reference, samples)
    # The same tokens for both refiners: a token that may differ is no reason for other actions.
    found = run_engines(engines, samples, wanted.intent)
    return compare(stage, wanted, found, subject.dims, limits)
