"""Chunks of actions on their way from the refiner to the robot, and how they follow each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Blend:
    """How a new chunk takes over from the one before (async only): `le_run_options.blend`.

    The two share `steps` control steps. The first `frozen` of them keep the old action, and so do
    those that are past when the chunk arrives; over the rest the old action fades into the new one.
    """

    steps: int = 0
    frozen: int = 0


@dataclass(frozen=True)
class Row:
    """An action [D] for one step, and the observation step of the oldest plan in it.

    `seen`: the step of the observation that its chunk was made from.
    """

    action: Floats
    plan_step: int
    seen: int


@dataclass(frozen=True)
class Chunk:
    """A refiner call under way from step `began` to `ready`, for the H steps from `first` on.

    `begun`: what `Pace.chunk_begins` gave; `seen`: the step of the observation.
    """

    began: int
    ready: int
    first: int
    plan_step: int
    actions: Floats
    begun: tuple[int, int] = (0, 0)
    seen: int = 0


def lay(queue: dict[int, Row], chunk: Chunk, step: int, blend: Blend) -> None:
    """Queue the rows of a chunk that are not past; over common steps the old ones fade into them.

    Args:
        queue: rows by control step.
        chunk: what the refiner gave.
        step: the present one.
        blend: how the two are smoothed.
    """
    common = max(queue, default=chunk.first - 1) + 1 - chunk.first
    frozen = min(common, max(step - chunk.first, blend.frozen))
    for i, action in enumerate(chunk.actions):
        before = queue.get(chunk.first + i)
        row = Row(action, chunk.plan_step, chunk.seen)
        if before is not None and blend.steps:
            new = max(0, i - frozen + 1)
            weight = np.float32(new) / np.float32(common - frozen + 1)
            blended = before.action + weight * (action - before.action)
            row = Row(blended, min(before.plan_step, chunk.plan_step), chunk.seen)
        if chunk.first + i >= step:
            queue[chunk.first + i] = row
