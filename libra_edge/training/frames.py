"""Decoded pictures of a dataset in one file on disk, so that memory does not grow with frames."""

from __future__ import annotations

import hashlib
import json
import mmap
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from libra_edge.atomic import new_file
from libra_edge.data.lerobot import Dataset
from libra_edge.data.types import UInt8Array
from libra_edge.errors import LibraError

# In the run's folder; removed when the run is finished, used again by one that goes on.
FRAMES, DESCRIPTION = "frames.u8", "frames.json"
_PROBED = 32
# What else a run writes: checkpoint, resume state, logs.
_SPARE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class FramePlan:
    """What decoding a dataset will take.

    Attributes:
        steps: control steps.
        shape: of one step's pictures: V, height, width, 3.
        size_bytes: on disk.
        seconds: about how long, from a few decoded pictures.
    """

    steps: int
    shape: tuple[int, int, int, int]
    size_bytes: int
    seconds: float


class FrameStore:
    """Pictures by number of the step, read from disk as they are asked for.

    Args:
        path: the file.
        steps: control steps in it.
        shape: of one step's pictures: V, height, width, 3.
    """

    def __init__(self, path: Path, steps: int, shape: tuple[int, int, int, int]) -> None:
        self._path = path
        with path.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self._frames = np.frombuffer(self._map, np.uint8).reshape(steps, *shape)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, steps: npt.NDArray[np.int64]) -> UInt8Array:
        """Copies of some steps' pictures: uint8 [n, V, height, width, 3]."""
        found: UInt8Array = self._frames[steps]
        # Pages that were touched count as this process's memory until they are given back; the
        # system keeps them cached as long as it has room.
        self._map.madvise(mmap.MADV_DONTNEED)
        return found

    def discard(self) -> None:
        """Remove the file; the pictures are not needed again."""
        self._path.unlink(missing_ok=True)
        (self._path.parent / DESCRIPTION).unlink(missing_ok=True)


def plan_frames(dataset: Dataset) -> FramePlan:
    """How much disk and time `store_frames` will take, from a few decoded pictures.

    Raises:
        InputError: those cannot be decoded.
    """
    started, decoded = time.perf_counter(), 0
    for number in range(len(dataset.episodes)):
        for _ in dataset.pictures(number):
            decoded += 1
            if decoded == _PROBED:
                break
        if decoded == _PROBED:
            break
    seconds = time.perf_counter() - started
    shape = (len(dataset.cameras), *dataset.picture_size, 3)
    steps = len(dataset)
    size = steps * int(np.prod(shape))
    return FramePlan(steps, shape, size, seconds / decoded * steps)


def store_frames(
    dataset: Dataset,
    plan: FramePlan,
    folder: Path,
    on_step: Callable[[int], None] = lambda _: None,
) -> FrameStore:
    """Decode every picture of a dataset once, at the robot's size, into a file.

    A file of the same pictures that stands there already is used as it is.

    Args:
        dataset: opened for the robot.
        plan: of `plan_frames`.
        folder: where to write.
        on_step: called with the number of steps that were added.

    Raises:
        LibraError: there is not enough room on the disk.
        InputError: a picture cannot be decoded, or `folder` cannot be written to.
    """
    path, description = folder / FRAMES, folder / DESCRIPTION
    wanted = {"key": _key(dataset, plan), "steps": plan.steps, "shape": list(plan.shape)}
    if path.is_file() and _read(description) == wanted and path.stat().st_size == plan.size_bytes:
        on_step(plan.steps)
        return FrameStore(path, plan.steps, plan.shape)
    _require_room(plan, folder)
    with new_file(path) as stream:
        for number in range(len(dataset.episodes)):
            for pictures in dataset.pictures(number):
                stream.write(np.ascontiguousarray(pictures).data)
                on_step(1)
    with new_file(description) as stream:
        stream.write(json.dumps(wanted).encode())
    return FrameStore(path, plan.steps, plan.shape)


def _key(dataset: Dataset, plan: FramePlan) -> str:
    facts = [dataset.fingerprint, *dataset.cameras, *map(str, plan.shape)]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _require_room(plan: FramePlan, folder: Path) -> None:
    place = next(p for p in (folder, *folder.resolve().parents) if p.is_dir())
    free = shutil.disk_usage(place).free
    if free < plan.size_bytes + _SPARE_BYTES:
        raise LibraError(
            "disk-full",
            f"the decoded pictures take {plan.size_bytes / 1e9:.1f} GB, {place} has "
            f"{free / 1e9:.1f} GB free.",
            "Free some space, put --out on another disk, or give the robot's description smaller "
            "images.",
        )
