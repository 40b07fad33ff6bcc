"""What lies behind a verdict: where two runs of a policy differ, by how much, and how surely.

Plain numbers for the report; gates stand in `libra_edge.parity.gates`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from libra_edge.models import Strict
from libra_edge.parity.gates import Outputs
from libra_edge.parity.samples import Sample
from libra_edge.policy.config import ActionDim

Floats = npt.NDArray[np.float64]
_RESAMPLINGS = 1_000
_WORST = 5


class Interval(Strict):
    """An estimate and its 95 % bootstrap interval over samples."""

    value: float
    low: float
    high: float


class DimensionTokens(Strict):
    """Share of equal tokens of one action dimension, and its 95 % bootstrap interval."""

    name: str
    agreement: float
    low: float
    high: float


class PlannerDetail(Strict):
    """Intent tokens of a candidate against a reference, over `samples` samples.

    seed: of the bootstrap; agreement: share of equal tokens; weighted_agreement: the same, each
    token weighted by the reference's margin; error_bins: mean distance in bins; confusion: counts
    [N bins, N bins], reference by candidate; differing_margins: the reference's margins where
    tokens differ; `…_ci`: 95 % bootstrap intervals over samples.
    """

    samples: int
    seed: int
    agreement: Interval
    weighted_agreement: float
    weighted_agreement_ci: tuple[float, float]
    error_bins: float
    error_bins_ci: tuple[float, float]
    dimensions: tuple[DimensionTokens, ...]
    confusion: tuple[tuple[int, ...], ...]
    differing_margins: tuple[float, ...]


class DimensionError(Strict):
    """Absolute action error of one dimension, in its unit; `span` is its range."""

    name: str
    unit: str
    span: float
    p50: float
    p95: float
    p99: Interval
    max: float


class WorstSample(Strict):
    """One of the samples with the largest error, as a fraction of the dimension's range."""

    sample: int
    origin: str
    dimension: str
    error: float


class RefinerDetail(Strict):
    """Actions of a candidate against a reference, over the `compared` samples with equal intents.

    seed: of the bootstrap; cosine and snr_db: per sample, of actions scaled by each dimension's
    range (median and worst); an exact copy has no noise and counts with 200 dB.
    """

    compared: int
    seed: int
    dimensions: tuple[DimensionError, ...]
    cosine_p50: float
    cosine_min: float
    snr_db_p50: float
    snr_db_min: float
    worst: tuple[WorstSample, ...]


class StepError(Strict):
    """Absolute error of the noisy actions after one denoising step, in shares of each range."""

    step: int
    mean: Interval
    p99: float
    max: float


class DenoisingDetail(Strict):
    """Errors after every step, over `samples` samples, both given the policy's intents and noise.

    runs_in: what the release's loop, written out, was run by; seed: of the bootstrap.
    """

    samples: int
    seed: int
    runs_in: str
    steps: tuple[StepError, ...]


def planner_detail(
    reference: Outputs, candidate: Outputs, bins: int, dims: Sequence[ActionDim], seed: int
) -> PlannerDetail:
    """Compare intents [N, L, D]."""
    equal = reference.intent == candidate.intent
    weights = reference.margin.astype(np.float64)
    distance = np.abs(reference.intent.astype(np.int64) - candidate.intent)
    confusion = np.zeros((bins, bins), np.int64)
    # What is no token at all fails a gate of its own; here it counts as the nearest.
    found = np.clip(candidate.intent, 0, bins - 1)
    np.add.at(confusion, (reference.intent.ravel(), found.ravel()), 1)
    both = np.stack([(weights * equal).sum(axis=(1, 2)), weights.sum(axis=(1, 2))], axis=1)
    weighted = bootstrap(both, _ratio, seed)
    error_bins = bootstrap(distance.mean(axis=(1, 2)), np.mean, seed)
    per_dimension = [bootstrap(equal[..., d].mean(axis=1), np.mean, seed) for d in range(len(dims))]
    return PlannerDetail(
        samples=len(equal),
        seed=seed,
        agreement=bootstrap(equal.mean(axis=(1, 2)), np.mean, seed),
        weighted_agreement=weighted.value,
        weighted_agreement_ci=(weighted.low, weighted.high),
        error_bins=error_bins.value,
        error_bins_ci=(error_bins.low, error_bins.high),
        dimensions=tuple(
            DimensionTokens(name=dim.name, agreement=found.value, low=found.low, high=found.high)
            for dim, found in zip(dims, per_dimension, strict=True)
        ),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        differing_margins=tuple(sorted(float(m) for m in reference.margin[~equal])),
    )


def refiner_detail(
    reference: Outputs,
    candidate: Outputs,
    samples: Sequence[Sample],
    dims: Sequence[ActionDim],
    seed: int,
) -> RefinerDetail | None:
    """Compare actions [N, H, D] where both were made from the same tokens; None if none were."""
    same = (reference.used == candidate.used).all(axis=(1, 2))
    if not same.any() or not np.isfinite(candidate.actions[same]).all():
        return None
    numbers = np.flatnonzero(same)
    wanted = reference.actions[same].astype(np.float64)
    error = np.abs(candidate.actions[same].astype(np.float64) - wanted)
    span = np.array([dim.upper - dim.lower for dim in dims])
    cosine, snr_db = _likeness(wanted / span, candidate.actions[same] / span)
    return RefinerDetail(
        compared=len(numbers),
        seed=seed,
        dimensions=tuple(
            _dimension(dim, error[..., d], float(span[d]), seed) for d, dim in enumerate(dims)
        ),
        cosine_p50=float(np.median(cosine)),
        cosine_min=float(cosine.min()),
        snr_db_p50=float(np.median(snr_db)),
        snr_db_min=float(snr_db.min()),
        worst=_worst(error / span, numbers, samples, dims),
    )


def _dimension(dim: ActionDim, error: Floats, span: float, seed: int) -> DimensionError:
    p50, p95 = np.percentile(error, [50, 95])
    return DimensionError(
        name=dim.name,
        unit=dim.unit,
        span=span,
        p50=float(p50),
        p95=float(p95),
        p99=bootstrap(error, lambda values: np.percentile(values, 99), seed),
        max=float(error.max()),
    )


def _worst(
    error: Floats,
    numbers: npt.NDArray[np.int64],
    samples: Sequence[Sample],
    dims: Sequence[ActionDim],
) -> tuple[WorstSample, ...]:
    by_dimension = error.max(axis=1)
    order = np.argsort(-by_dimension.max(axis=1), kind="stable")[:_WORST]
    return tuple(
        WorstSample(
            sample=int(numbers[i]),
            origin=samples[numbers[i]].origin,
            dimension=dims[int(by_dimension[i].argmax())].name,
            error=float(by_dimension[i].max()),
        )
        for i in order
    )


def _likeness(wanted: Floats, found: Floats) -> tuple[Floats, Floats]:
    """Cosine and signal-to-noise ratio (dB) of each sample's actions."""
    a, b = wanted.reshape(len(wanted), -1), found.reshape(len(found), -1)
    tiny = 1e-20
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine: Floats = np.where(lengths > tiny, (a * b).sum(axis=1) / np.maximum(lengths, tiny), 1.0)
    noise = ((a - b) ** 2).sum(axis=1)
    ratio = (a**2).sum(axis=1) / np.maximum(noise, tiny)
    return cosine, np.where(noise > tiny, 10 * np.log10(np.maximum(ratio, tiny)), 200.0)


def _ratio(pairs: Floats) -> np.floating:
    """Sum of the first column over that of the second."""
    first, second = pairs.sum(axis=0)
    return np.float64(first / max(second, 1e-12))


def bootstrap(values: Floats, statistic: Callable[[Floats], np.floating], seed: int) -> Interval:
    """Resample whole samples (the first axis), as values within one belong together."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(values), (_RESAMPLINGS, len(values)))
    low, high = np.percentile([statistic(values[rows]) for rows in drawn], [2.5, 97.5])
    return Interval(value=float(statistic(values)), low=float(low), high=float(high))
