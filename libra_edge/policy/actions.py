"""The action space: normalisation, N-bin intent tokens, limits and hold actions (NumPy)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.errors import InputError
from libra_edge.paths import StrPath
from libra_edge.policy.config import ActionDim, Normalization, StateDim

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]

_STATISTICS: dict[Normalization, tuple[str, ...]] = {
    "quantiles": ("q01", "q99"),
    "min_max": ("min", "max"),
    "mean_std": ("mean", "std"),
    "identity": (),
}
# A dimension that never moves in the data has no scale of its own.
_SMALLEST_SCALE = 1e-6


@dataclass(frozen=True)
class Affine:
    """normalised = (physical - offset) / scale, per dimension (float32 [dims])."""

    offset: Floats
    scale: Floats

    def normalize(self, physical: Array) -> Floats:
        """Physical units [..., dims] to the policy's unit range."""
        return np.asarray((physical - self.offset) / self.scale, dtype=np.float32)

    def denormalize(self, normalized: Array) -> Floats:
        """The policy's unit range [..., dims] to physical units."""
        return np.asarray(normalized * self.scale + self.offset, dtype=np.float32)


def affine_from_statistics(
    kind: Normalization, statistics: Mapping[str, Sequence[float]], dims: int, feature: str
) -> Affine:
    """Derive the affine map of one feature from its dataset statistics.

    Args:
        kind: which statistics span the unit range.
        statistics: LeRobot-style statistics of the feature: name to one value per dimension.
        dims: number of dimensions the policy has.
        feature: name used in errors.

    Raises:
        InputError: a statistic is missing, has another length or is not finite.
    """
    values = []
    for name in _STATISTICS[kind]:
        value = np.asarray(statistics.get(name, ()), dtype=np.float64)
        if value.shape != (dims,) or not np.isfinite(value).all():
            raise InputError(
                "stats-invalid",
                f"stats.json: {feature}.{name} needs {dims} finite values, "
                f"found {list(value.shape)}.",
                "Use the statistics of the dataset that the policy was trained on.",
            )
        values.append(value)
    if kind == "identity":
        offset, scale = np.zeros(dims), np.ones(dims)
    elif kind == "mean_std":
        offset, scale = values
    else:
        low, high = values
        offset, scale = (high + low) / 2, (high - low) / 2
    scale = np.where(scale < _SMALLEST_SCALE, 1.0, scale)
    return Affine(offset.astype(np.float32), scale.astype(np.float32))


def read_statistics(path: StrPath) -> dict[str, dict[str, list[float]]]:
    """Read a checkpoint's `stats.json`.

    Raises:
        InputError: missing file, not JSON, or not feature → statistic → numbers.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            "stats-missing", f"{path} does not exist.", "Copy stats.json from the training run."
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            "stats-invalid", f"{path} is not JSON: {error}.", "Copy it from the training run again."
        ) from None
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise InputError(
            "stats-invalid",
            f"{path} is not a table of feature → statistic → numbers.",
            "Copy it from the training run again.",
        )
    return content


def to_tokens(normalized: Array, bins: int) -> Tokens:
    """Quantise normalised actions to intent tokens: N uniform bins over [-1, 1].

    token = clip(floor((a + 1) / 2 * N), 0, N - 1); values outside fall into the outer bins.
    """
    scaled = np.floor((np.asarray(normalized, dtype=np.float64) + 1.0) / 2.0 * bins)
    return np.clip(scaled, 0, bins - 1).astype(np.int32)


def bin_centers(tokens: Array, bins: int) -> Floats:
    """Normalised action at the centre of each token's bin: -1 + (2 * token + 1) / N."""
    return np.asarray(-1.0 + (2.0 * np.asarray(tokens) + 1.0) / bins, dtype=np.float32)


def limits(dims: Sequence[ActionDim]) -> tuple[Floats, Floats]:
    """Lower and upper limit of each dimension, physical units, float32 [D] each."""
    lower = np.array([d.lower for d in dims], dtype=np.float32)
    upper = np.array([d.upper for d in dims], dtype=np.float32)
    return lower, upper


def measured_by(dims: Sequence[ActionDim], state: Sequence[StateDim]) -> npt.NDArray[np.intp]:
    """For each action dimension the number of the state that measures it, -1 without one.

    An absolute dimension is measured by the state of the same name and unit.
    """
    places = {(dim.name, dim.unit): number for number, dim in enumerate(state)}
    found = [places.get((d.name, d.unit), -1) if d.kind == "absolute" else -1 for d in dims]
    return np.array(found, dtype=np.intp)


def hold_action(dims: Sequence[ActionDim], last: Floats) -> Floats:
    """The action that keeps the robot where it is: delta dimensions zero, others the last."""
    moving = np.array([d.kind == "delta" for d in dims])
    return np.where(moving, np.float32(0.0), last).astype(np.float32)
