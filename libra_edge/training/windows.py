"""Training samples: what planner and refiner see of a demonstration at run time.

The planner looks at step s and plans s … s + L - 1. The refiner of chunk m (0 <= m < M) looks at
step s + m*H, with the intents that the planner made m chunks earlier. Steps past an episode's end
repeat its last action and are masked out of the losses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from libra_edge.data.types import Episode
from libra_edge.errors import InputError
from libra_edge.policy.actions import Affine, to_tokens
from libra_edge.policy.config import PolicyConfig
from libra_edge.policy.tokenizer import Tokenizer


@dataclass(frozen=True)
class Batch:
    """B samples; `late_*` belongs to the refiner's observation, `mask` is 1 on real steps."""

    images: npt.NDArray[np.uint8]
    states: npt.NDArray[np.float32]
    instructions: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]
    mask: npt.NDArray[np.float32]
    late_images: npt.NDArray[np.uint8]
    late_states: npt.NDArray[np.float32]
    chunk: npt.NDArray[np.int64]
    late_actions: npt.NDArray[np.float32]
    late_mask: npt.NDArray[np.float32]


class Windows:
    """All frames of a dataset in memory, and seeded batches of windows over them."""

    def __init__(
        self,
        episodes: Iterable[Episode],
        config: PolicyConfig,
        state: Affine,
        action: Affine,
        tokenizer: Tokenizer,
    ) -> None:
        kept = list(episodes)
        if not kept:
            raise InputError("dataset-empty", "The dataset has no episodes.", "Collect some first.")
        lengths = np.array([len(e) for e in kept])
        self._config = config
        self._images = np.concatenate([e.images for e in kept])
        self._states = state.normalize(np.concatenate([e.states for e in kept]))
        self._actions = action.normalize(np.concatenate([e.actions for e in kept]))
        encoded = np.stack([tokenizer.encode(e.instruction) for e in kept])
        self._instructions = np.repeat(encoded, lengths, axis=0)
        self._last = np.repeat(np.cumsum(lengths) - 1, lengths)

    def __len__(self) -> int:
        return len(self._actions)

    def batch(self, size: int, random: np.random.Generator) -> Batch:
        """Draw `size` windows uniformly over all frames."""
        config = self._config
        start = random.integers(0, len(self), size)
        last = self._last[start]
        chunk = random.integers(0, config.chunks_per_plan, size)
        late = np.minimum(start + chunk * config.chunk, last)
        plan = start[:, None] + np.arange(config.plan_steps)
        later = late[:, None] + np.arange(config.chunk)
        actions = self._actions[np.minimum(plan, last[:, None])]
        return Batch(
            images=self._images[start],
            states=self._states[start],
            instructions=self._instructions[start],
            tokens=to_tokens(actions, config.bins),
            mask=(plan <= last[:, None]).astype(np.float32),
            late_images=self._images[late],
            late_states=self._states[late],
            chunk=chunk,
            late_actions=self._actions[np.minimum(later, last[:, None])],
            late_mask=(later <= last[:, None]).astype(np.float32),
        )


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
