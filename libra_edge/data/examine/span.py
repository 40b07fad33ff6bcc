"""What a dimension does, against the statistics that are to span it in the policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.data.examine.values import is_gripper, named, noise
from libra_edge.data.findings import Finding, doubt, error
from libra_edge.data.lerobot.dataset import Dataset
from libra_edge.data.lerobot_writer import ACTION_KEY
from libra_edge.data.types import FloatArray
from libra_edge.policy.config import Embodiment, NormalizationConfig

# Quantiles that span less of what a dimension does than this have lost it.
_LOST_SPAN, _LOST_GRIPPER_SPAN, _NARROW_SPAN = 1e-3, 0.5, 0.05


def check_span(
    dataset: Dataset, key: str, rows: FloatArray, robot: Embodiment, kinds: NormalizationConfig
) -> Iterator[Finding]:
    """Dimensions that move, but not between the statistics that are to span them.

    Actions are clipped to the unit range, states are not: of states, only quantiles that coincide
    matter.
    """
    kind = kinds.action if key == ACTION_KEY else kinds.state
    values = rows.astype(np.float64)
    least, most = values.min(axis=0), values.max(axis=0)
    quantiles = np.quantile(values, (0.01, 0.99), axis=0)
    spans = {"quantiles": (quantiles, "q01 and q99")}
    if key == ACTION_KEY:
        mean, std = values.mean(axis=0), values.std(axis=0)
        spans["mean_std"] = (np.stack([mean - std, mean + std]), "mean ± std")
    for dim in range(values.shape[1]):
        whole = most[dim] - least[dim]
        if whole <= noise(most[dim], least[dim]):
            continue
        if kind in spans:
            (low, high), words = spans[kind]
            ends = (float(low[dim]), float(high[dim]))
            yield from _span(dataset, key, dim, values[:, dim], ends, words, robot)
        elif kind == "min_max":
            yield from _outliers(dataset, key, dim, values[:, dim], quantiles[:, dim], robot)


def _span(
    dataset: Dataset,
    key: str,
    dim: int,
    values: npt.NDArray[np.float64],
    ends: tuple[float, float],
    words: str,
    robot: Embodiment,
) -> Iterator[Finding]:
    least, most = float(values.min()), float(values.max())
    span = (ends[1] - ends[0]) / (most - least)
    gripper = key == ACTION_KEY and is_gripper(robot.actions[dim])
    lost = span < (_LOST_GRIPPER_SPAN if gripper else _LOST_SPAN)
    if not lost and span >= _NARROW_SPAN:
        return
    outside = np.mean((values < ends[0]) | (values > ends[1]))
    fact = (
        f"{key}[{dim}]{named(dataset, key, dim)} moves from {least:g} to {most:g}, but its "
        f"{words}, {ends[0]:g} and {ends[1]:g}, span {span:.2g} of that ({outside:.2%} of the "
        "frames lie outside)"
    )
    table = "action" if key == ACTION_KEY else "state"
    remedy = (
        f'Set {table} = "min_max" in [policy.normalization] of the training recipe, or record '
        "more episodes in which the dimension moves."
    )
    where: dict[str, Any] = {"feature": key, "dimension": dim}
    if lost:
        fact += ": a policy could never do the rest."
        yield error("dataset-range-lost", fact, remedy, **where)
    else:
        yield doubt("dataset-range-narrow", f"{fact}.", remedy, **where)


def _outliers(
    dataset: Dataset,
    key: str,
    dim: int,
    values: npt.NDArray[np.float64],
    quantiles: npt.NDArray[np.float64],
    robot: Embodiment,
) -> Iterator[Finding]:
    """Under `min_max`, a few values that set the scale of all others."""
    least, most = float(values.min()), float(values.max())
    span = float(quantiles[1] - quantiles[0]) / (most - least)
    gripper = key == ACTION_KEY and is_gripper(robot.actions[dim])
    if gripper or span >= _NARROW_SPAN:
        return
    yield doubt(
        "dataset-range-narrow",
        f"{key}[{dim}]{named(dataset, key, dim)} runs from {least:g} to {most:g}, which 98 % of "
        f"the frames use {span:.2g} of ({quantiles[0]:g} to {quantiles[1]:g}): a few values set "
        "the scale.",
        "Repair or drop those frames if they are wrong; keep min_max if the dimension goes there.",
        feature=key,
        dimension=dim,
    )
