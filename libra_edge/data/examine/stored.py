"""The statistics a dataset brings, against those of its data, which are used in any case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.data.findings import Finding, doubt, note
from libra_edge.data.lerobot.dataset import Dataset
from libra_edge.data.statistics import QUANTILES, FeatureStats, vector_stats
from libra_edge.data.types import FloatArray

_EXACT = ("min", "max", "mean", "std")
# A fraction of the dimension's range: LeRobot sums episodes up in float32.
_TOLERANCE = 1e-3
_REMEDY = "Nothing: those of the data itself are used. Write meta/stats.json again for others."


def check_stored(dataset: Dataset, key: str, rows: FloatArray) -> Iterator[Finding]:
    """`meta/stats.json` of one vector feature against its rows, float32 [N, dims]."""
    truth = vector_stats(rows)
    stored = dataset.layout.stats.get(key)
    where: dict[str, Any] = {"feature": key}
    if not isinstance(stored, Mapping):
        yield note(
            "dataset-statistics-missing",
            f"{dataset.path} has no statistics of {key}; they were computed.",
            "Nothing: those of the data itself are used.",
            **where,
        )
        return
    lacking = [name for name in (*_EXACT, *QUANTILES) if name not in stored]
    if lacking:
        yield note(
            "dataset-statistics-missing",
            f"meta/stats.json of {dataset.path} lacks {', '.join(lacking)} of {key}; computed.",
            "Nothing: those of the data itself are used.",
            **where,
        )
    yield from _compare(dataset, key, stored, truth)


def _compare(
    dataset: Dataset, key: str, stored: Mapping[str, Any], truth: FeatureStats
) -> Iterator[Finding]:
    scale = np.maximum(truth["max"] - truth["min"], 1e-3 * np.abs(truth["max"]) + 1e-6)
    averaged: list[str] = []
    for name in (*_EXACT, *QUANTILES):
        if name not in stored:
            continue
        value = _numbers(stored[name])
        if value is None or value.shape != truth[name].shape or not np.isfinite(value).all():
            yield doubt(
                "dataset-statistics-wrong",
                f"meta/stats.json of {dataset.path}: {key}.{name} is not "
                f"{len(truth[name])} finite numbers.",
                _REMEDY,
                feature=key,
            )
            return
        off = np.abs(value - truth[name]) / scale
        if off.max() <= _TOLERANCE:
            continue
        dim = int(off.argmax())
        inside = bool(np.all((value >= truth["min"] - scale) & (value <= truth["max"] + scale)))
        if name in QUANTILES and inside:
            averaged.append(f"{name}[{dim}] {value[dim]:.4g} for {truth[name][dim]:.4g}")
            continue
        yield doubt(
            "dataset-statistics-wrong",
            f"meta/stats.json of {dataset.path}: {key}.{name}[{dim}] is {value[dim]:.6g}, the data "
            f"gives {truth[name][dim]:.6g}.",
            f"{_REMEDY} Wrong ones may belong to another dataset.",
            feature=key,
            dimension=dim,
        )
        return
    if averaged:
        yield note(
            "dataset-quantiles",
            f"meta/stats.json of {dataset.path}: quantiles of {key} are not the data's "
            f"({averaged[0]}): LeRobot estimates them per episode and takes the mean.",
            "Nothing: those of the data itself are used.",
            feature=key,
        )


def _numbers(value: Any) -> npt.NDArray[np.float64] | None:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None
