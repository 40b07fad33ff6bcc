"""Where a LeRobot dataset keeps what, whatever its version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libra_edge.data.lerobot_writer import IMAGE_PREFIX

PICTURE_DTYPES = ("video", "image")
_OBSERVATION = "observation."


@dataclass(frozen=True)
class Clip:
    """An episode's part of a video file; times in seconds from the file's beginning."""

    path: Path
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Row:
    """What `meta/` says of one episode.

    Attributes:
        index: its number.
        length: frames.
        tasks: its instructions, in no order.
        data_path: its parquet file.
        clips: by feature, its part of a video.
        first: dataset-wide number of its first frame, and of the one past its last, if said.
        extra: what Libra Edge's own writer adds.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data_path: Path
    clips: Mapping[str, Clip]
    span: tuple[int, int] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """A dataset's `meta/`, read.

    Attributes:
        path: the dataset's folder.
        version: LeRobot's, "v3.0" for example.
        info: `meta/info.json`.
        fps: frames per second.
        features: by name, LeRobot's description of each.
        rows: the episodes by number.
        tasks: instructions by `task_index`.
        stats: `meta/stats.json`, empty where there is none.
    """

    path: Path
    version: str
    info: Mapping[str, Any]
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    rows: tuple[Row, ...]
    tasks: Mapping[int, str]
    stats: Mapping[str, Any]

    @property
    def cameras(self) -> tuple[str, ...]:
        """Features that are pictures, in the dataset's order."""
        return tuple(k for k, f in self.features.items() if f.get("dtype") in PICTURE_DTYPES)

    def size(self, key: str) -> int:
        """Dimensions of a vector feature."""
        shape = self.features[key].get("shape") or [1]
        return int(shape[0])


def camera_name(key: str) -> str:
    """What a robot's description calls the camera of a feature."""
    return (
        key.removeprefix(IMAGE_PREFIX)
        if key.startswith(IMAGE_PREFIX)
        else key.removeprefix(_OBSERVATION)
    )
