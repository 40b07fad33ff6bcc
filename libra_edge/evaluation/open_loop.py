"""Open loop: the policy on recorded observations, for machines without a renderer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from libra_edge.data.lerobot import Dataset
from libra_edge.data.lerobot_writer import ACTION_KEY
from libra_edge.data.types import Controller
from libra_edge.errors import NotMeasuredError


@dataclass(frozen=True)
class Replay:
    """How far the policy's actions lie from the recorded ones.

    Attributes:
        episodes: episodes replayed.
        frames: observations shown.
        mean_error: mean absolute difference per action dimension, physical units.
        relative_error: the same averaged over dimensions, as a fraction of what always giving the
            mean recorded action would score: 0 is identical, 1 no better than that.
    """

    episodes: int
    frames: int
    mean_error: tuple[float, ...]
    relative_error: float

    def in_words(self) -> str:
        """What was and what was not measured."""
        return (
            f"On {self.frames} recorded observations of {self.episodes} episodes the policy's "
            f"actions differ from the recorded ones by {self.relative_error:.0%} of what always "
            "giving the mean action would. Nothing was moved: this says how alike the actions "
            "are, not whether the tasks succeed."
        )


def replay(
    dataset: Dataset,
    controller: Controller,
    episodes: int | None = None,
    on_episode: Callable[[int], None] = lambda _: None,
) -> Replay:
    """Show recorded episodes to the policy step by step and compare its actions.

    Args:
        dataset: recorded on the policy's robot (`Dataset.check_matches`).
        controller: the policy.
        episodes: how many episodes, spread over the dataset; None for all.
        on_episode: called with the number of each finished episode.
    """
    total = len(dataset.episodes)
    if total == 0 or episodes == 0:
        raise NotMeasuredError("no-episodes", "no episode to replay.", "Name a dataset with some.")
    count = min(total, episodes or total)
    numbers = [number * total // count for number in range(count)]
    given, recorded = [], []
    for number in numbers:
        episode = dataset.episode(number)
        controller.reset(episode.seed, episode.instruction)
        given += [controller.act(episode.observation(step)) for step in range(len(episode))]
        recorded.append(episode.actions)
        on_episode(number)
    target = np.concatenate(recorded)
    mean_action = dataset.stats[ACTION_KEY]["mean"]
    error = np.abs(np.stack(given) - target).mean(axis=0)
    baseline = np.abs(mean_action - target).mean(axis=0)
    return Replay(
        episodes=count,
        frames=len(target),
        mean_error=tuple(float(value) for value in error),
        relative_error=float(error.sum() / max(baseline.sum(), np.finfo(np.float64).tiny)),
    )
