"""Training samples: what planner and refiner see of a demonstration at run time.

The planner looks at step s and plans s … s + L - 1. A chunk begins at s + o, with the planner's
intents from there on, and the refiner looks at step s + o - d, which is s or later: an engine call
never ends before it began. In sync mode o is a multiple of H and d is 0; in async mode o is any
offset that leaves H planned, and d is what the refiner and its wait take. `PolicyConfig.real_time`
says which of these are shown; none of them before training for real time. Steps past the end of an
episode, or past a change of its instruction, repeat the last action and are masked out of the
losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from libra_edge.data.types import FloatArray
from libra_edge.errors import InputError
from libra_edge.policy.actions import Affine, to_tokens
from libra_edge.policy.config import PolicyConfig
from libra_edge.policy.tokenizer import Tokenizer


class Frames(Protocol):
    """Pictures by number of the step: an array, or a file on disk."""

    def __len__(self) -> int:
        """Steps."""
        ...

    def __getitem__(self, steps: npt.NDArray[np.int64], /) -> npt.NDArray[np.uint8]:
        """Some steps' pictures: uint8 [n, V, h, w, 3]."""
        ...


@dataclass(frozen=True)
class Track:
    """The vectors of one episode, and what the robot was told.

    Attributes:
        states: float32 [T, P], physical units.
        actions: float32 [T, D], physical units.
        told: instructions with the step each begins at, the first at 0.
    """

    states: FloatArray
    actions: FloatArray
    told: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Batch:
    """B samples; `late_*` belongs to the refiner, `mask` is 1 on real steps.

    `offset` [B]: the step of the plan at which the chunk begins.
    """

    images: npt.NDArray[np.uint8]
    states: npt.NDArray[np.float32]
    instructions: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]
    mask: npt.NDArray[np.float32]
    late_images: npt.NDArray[np.uint8]
    late_states: npt.NDArray[np.float32]
    offset: npt.NDArray[np.int64]
    late_actions: npt.NDArray[np.float32]
    late_mask: npt.NDArray[np.float32]


class Windows:
    """Seeded batches of windows over all frames of a dataset.

    Args:
        frames: pictures of every step, episode after episode.
        tracks: the episodes, in the same order.
        config: the policy.
        state: map of the states to the policy's unit range.
        action: map of the actions.
        tokenizer: the policy's.
    """

    def __init__(
        self,
        frames: Frames,
        tracks: Sequence[Track],
        config: PolicyConfig,
        state: Affine,
        action: Affine,
        tokenizer: Tokenizer,
    ) -> None:
        if not tracks:
            raise InputError("dataset-empty", "The dataset has no episodes.", "Collect some first.")
        self._config = config
        self.frames = frames
        self._states = state.normalize(np.concatenate([track.states for track in tracks]))
        self._actions = action.normalize(np.concatenate([track.actions for track in tracks]))
        lengths, numbers = [], []
        words: dict[str, int] = {}
        for track in tracks:
            ends = [start for start, _ in track.told[1:]] + [len(track.actions)]
            for (start, text), end in zip(track.told, ends, strict=True):
                lengths.append(end - start)
                numbers.append(words.setdefault(text, len(words)))
        self._words = np.stack([tokenizer.encode(text) for text in words])
        self._told = np.repeat(np.array(numbers, np.int32), lengths)
        self._last = np.repeat(np.cumsum(lengths) - 1, lengths)
        if not len(frames) == len(self._actions) == len(self._last):
            raise ValueError(f"{len(frames)} pictures for {len(self._actions)} actions")

    def __len__(self) -> int:
        return len(self._actions)

    def batch(self, size: int, random: np.random.Generator) -> Batch:
        """Draw `size` windows uniformly over all frames."""
        config = self._config
        start = random.integers(0, len(self), size)
        last = self._last[start]
        offset, age = self._real_time(size, random)
        late = np.minimum(start + offset, last)
        seen = np.maximum(late - age, start)
        plan = start[:, None] + np.arange(config.plan_steps)
        later = late[:, None] + np.arange(config.chunk)
        actions = self._actions[np.minimum(plan, last[:, None])]
        return Batch(
            images=self.frames[start],
            states=self._states[start],
            instructions=self._words[self._told[start]],
            tokens=to_tokens(actions, config.bins),
            mask=(plan <= last[:, None]).astype(np.float32),
            late_images=self.frames[seen],
            late_states=self._states[seen],
            offset=offset,
            late_actions=self._actions[np.minimum(later, last[:, None])],
            late_mask=(later <= last[:, None]).astype(np.float32),
        )

    def _real_time(
        self, size: int, random: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Plan offset and age of the refiner's observation, in steps, of each sample."""
        config, shown = self._config, self._config.real_time
        if shown is None or not shown.plan_offsets:
            offset = random.integers(0, config.chunks_per_plan, size) * config.chunk
        else:
            offset = random.integers(0, config.plan_steps - config.chunk + 1, size)
        if shown is None or shown.observation_age_steps == 0:
            return offset, np.zeros_like(offset)
        oldest = np.minimum(offset, shown.observation_age_steps)
        return offset, random.integers(0, oldest + 1)


def random_shift(
    images: npt.NDArray[np.uint8], pixels: int, random: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Move each view [B, V, h, w, 3] by up to `pixels`, edges repeated (DrQ's augmentation)."""
    if pixels == 0:
        return images
    views = images.reshape(-1, *images.shape[2:])
    height, width = views.shape[1:3]
    rows = random.integers(-pixels, pixels + 1, (len(views), 1)) + np.arange(height)
    columns = random.integers(-pixels, pixels + 1, (len(views), 1)) + np.arange(width)
    index = np.arange(len(views))[:, None, None]
    rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
    moved: npt.NDArray[np.uint8] = views[index, rows[:, :, None], columns[:, None, :]]
    return moved.reshape(images.shape)
