"""Demonstrations from a simulator's scripted experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from libra_edge.data.lerobot_writer import DatasetWriter
from libra_edge.data.simulator import Simulator, Split, open_simulator
from libra_edge.data.types import Episode, FloatArray
from libra_edge.data.video import Codec
from libra_edge.errors import InputError
from libra_edge.paths import StrPath
from libra_edge.workers.ordered import map_ordered
from libra_edge.workers.where import HERE, Workers

# How often a demonstration may fail before the expert itself is called unusable.
_MAX_ATTEMPTS = 20
_SEEDS_PER_RUN = 1_000_000


@dataclass(frozen=True)
class CollectConfig:
    """How demonstrations are made.

    Attributes:
        episodes: for each of the simulator's tasks to record, the successful episodes to keep.
        seed: first of the runs' seeds; runs with different seeds share no scene.
        split: which variations, "train" or "eval".
        noise_std: standard deviation of the disturbance, in fractions of each dimension's range.
        noise_hold_steps: how long one disturbance lasts.
        noisy_share: share of the episodes that are disturbed.
        detour_steps: longest detour at the start of an episode; it is not recorded.
        detour_share: share of the episodes that start with one.
        steps_after_success: how long to go on after success, so that the end is seen too.
    """

    episodes: dict[str, int]
    seed: int = 0
    split: Split = "train"
    noise_std: float = 0.1
    noise_hold_steps: int = 4
    noisy_share: float = 0.5
    detour_steps: int = 20
    detour_share: float = 0.0
    steps_after_success: int = 5


def collect(
    simulator: str,
    config: CollectConfig,
    out: StrPath,
    workers: Workers = HERE,
    codec: Codec = "lossless",
    on_episode: Callable[[Episode], None] = lambda _: None,
) -> None:
    """Record demonstrations as a LeRobot v3 dataset.

    In a disturbed episode the robot executes the expert's action plus noise, and the expert's own
    action is recorded: the data then shows how to come back from a mistake (Laskey et al., DART).

    Args:
        simulator: name of the simulator.
        config: what to record.
        out: folder to create.
        workers: where the episodes are recorded; the result does not depend on it.
        codec: how camera frames are compressed.
        on_episode: called after each episode is written.
    """
    out = Path(out)
    _check(config)
    opened = open_simulator(simulator, config.split)
    for task in config.episodes:
        opened.instructions(task)
    recipe = {"simulator": simulator} | asdict(config)
    with DatasetWriter(out, opened.embodiment(), codec, recipe) as writer:
        for episode in _episodes(simulator, config, workers):
            writer.add(episode)
            on_episode(episode)


def record_episode(simulator: Simulator, config: CollectConfig, task: str, slot: int) -> Episode:
    """Episode number `slot` of `task`: the first successful one of its own series of seeds."""
    for attempt in range(_MAX_ATTEMPTS):
        seed = config.seed * _SEEDS_PER_RUN + attempt * config.episodes[task] + slot
        episode = _attempt(simulator, config, task, seed)
        if episode.success:
            return episode
    raise InputError(
        "expert-failed",
        f"the expert failed {task} {_MAX_ATTEMPTS} times in a row.",
        "Lower the noise or leave the task out.",
    )


def _check(config: CollectConfig) -> None:
    if not config.episodes or min(config.episodes.values()) < 1:
        raise InputError("nothing-to-collect", "no task or no episode.", "Ask for at least one.")
    shares = (config.noisy_share, config.detour_share)
    if min(config.noise_std, config.detour_steps, config.seed) < 0 or not all(
        0 <= share <= 1 for share in shares
    ):
        raise InputError(
            "collect-range",
            f"noise {config.noise_std}, detour of {config.detour_steps} steps, "
            f"shares {shares}, seed {config.seed}.",
            "Noise, steps and seed must not be negative; shares lie between 0 and 1.",
        )


def _attempt(simulator: Simulator, config: CollectConfig, task: str, seed: int) -> Episode:
    """One run of the expert, successful or not."""
    rng = np.random.default_rng([seed, len(task), 7])
    noisy = rng.random() < config.noisy_share
    actions_of = simulator.embodiment().actions
    lower = np.array([dim.lower for dim in actions_of], np.float32)
    upper = np.array([dim.upper for dim in actions_of], np.float32)
    observation = simulator.reset(task, seed)
    if rng.random() < config.detour_share:
        held = rng.uniform(lower, upper).astype(np.float32)
        for _ in range(rng.integers(config.detour_steps + 1)):
            observation, _ = simulator.step(held)
    disturbance: FloatArray = np.zeros_like(lower)
    images, states, actions = [], [], []
    left = None
    for step in range(simulator.max_steps):
        action = simulator.expert_action()
        images.append(observation.images)
        states.append(observation.state)
        actions.append(action)
        if noisy and step % config.noise_hold_steps == 0:
            noise = rng.normal(0.0, config.noise_std, lower.shape)
            disturbance = (noise * (upper - lower)).astype(np.float32)
        executed = np.clip(action + disturbance, lower, upper)
        observation, success = simulator.step(executed)
        if success and left is None:
            left = config.steps_after_success
        elif left is not None:
            left -= 1
        if left == 0:
            break
    return Episode(
        images=np.stack(images),
        states=np.stack(states),
        actions=np.stack(actions),
        instruction=observation.instruction,
        task=task,
        success=left is not None,
        seed=seed,
    )


def _episodes(simulator: str, config: CollectConfig, workers: Workers) -> Iterator[Episode]:
    """All episodes in a fixed order."""
    slots = [(task, slot) for task, count in config.episodes.items() for slot in range(count)]
    opened = partial(_open, simulator, config.split)
    return map_ordered(opened, partial(_record_slot, config), slots, workers)


def _open(simulator: str, split: Split) -> AbstractContextManager[Simulator]:
    return closing(open_simulator(simulator, split))


def _record_slot(config: CollectConfig, simulator: Simulator, slot: tuple[str, int]) -> Episode:
    return record_episode(simulator, config, *slot)
