"""The statistics a LeRobot dataset keeps per feature."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from libra_edge.data.types import UInt8Array

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

FeatureStats = dict[str, npt.NDArray[np.float64]]


def vector_stats(rows: npt.NDArray[np.generic]) -> FeatureStats:
    """Statistics of [T, D] over T.

    Returns:
        `min`, `max`, `mean`, `std` and the quantiles as float64 [D]; `count` as float64 [1].
    """
    values = rows.astype(np.float64)
    stats = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([float(len(values))]),
    }
    return stats | {name: np.quantile(values, q, axis=0) for name, q in QUANTILES.items()}


class ImageStats:
    """Exact statistics of a camera from its histogram, whatever the number of frames."""

    def __init__(self) -> None:
        self._histogram = np.zeros((3, 256), np.int64)
        self._frames = 0

    def add(self, frames: UInt8Array) -> None:
        """Count uint8 [T, height, width, 3]."""
        self._frames += len(frames)
        for channel in range(3):
            self._histogram[channel] += np.bincount(frames[..., channel].ravel(), minlength=256)

    def result(self) -> FeatureStats:
        """Per colour channel, pixels in [0, 1]: float64 [3, 1, 1]; `count` in frames: [1]."""
        levels = np.arange(256) / 255.0
        weight = self._histogram / self._histogram.sum(axis=1, keepdims=True)
        cumulative = np.cumsum(weight, axis=1)
        mean = weight @ levels
        present = self._histogram > 0
        columns = {
            "min": levels[present.argmax(axis=1)],
            "max": levels[255 - present[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt(np.maximum(weight @ levels**2 - mean**2, 0.0)),
        }
        for name, q in QUANTILES.items():
            columns[name] = levels[(cumulative >= q).argmax(axis=1)]
        stats = {name: column.reshape(3, 1, 1) for name, column in columns.items()}
        return stats | {"count": np.array([float(self._frames)])}
