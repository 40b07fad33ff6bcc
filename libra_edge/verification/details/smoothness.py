"""How smooth are the executed actions, in step and with threads, for fewer chunks per plan?

The reference executor steps through recorded episodes over the release's engines, in virtual time.
That is open loop: what was recorded does not answer to the actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from libra_edge.data.extras import needs_extra
from libra_edge.errors import LibraError
from libra_edge.models import Strict
from libra_edge.parity.gates import NOT_FINITE
from libra_edge.policy.config import ActionDim, Embodiment, PolicyConfig
from libra_edge.policy.executor import Engines, Executor, Images, Instruction, State
from libra_edge.policy.tokenizer import Tokenizer
from libra_edge.verification.details.differences import Floats, Interval, bootstrap

EPISODES = 12
MOST_STEPS = 60
# Virtual delays of async mode; what a slow computer needs, so that plans are used late.
PLANNER_DELAY_STEPS, REFINER_DELAY_STEPS = 2, 1
# Below this speed, in ranges per step, a path has no direction.
_STANDING = 1e-3


class TrajectoryRun(Strict):
    """One way to run, over all episodes; 95 % bootstrap intervals over episodes.

    engines: the release's, or the policy's own in PyTorch; jerk: mean length of the path's third
    derivative, in ranges per s^3; curvature: turned angle per length of path, in radians per range;
    the changes are shares of the release's sync run, None for that run; held_steps: in HOLD after
    the first action.
    """

    engines: Literal["release", "policy"]
    mode: Literal["sync", "async"]
    chunks_per_plan: int
    jerk: Interval
    curvature: Interval
    jerk_change: Interval | None
    curvature_change: Interval | None
    held_steps: int


class TrajectoryDetail(Strict):
    """Paths of executed actions on recorded episodes, each dimension scaled by its range.

    Delta dimensions are summed up to a path, grippers are left out. The release's sync run stands
    first.
    """

    episodes: int
    steps: int
    control_hz: float
    seed: int
    planner_delay_steps: int
    refiner_delay_steps: int
    runs: tuple[TrajectoryRun, ...]


@dataclass(frozen=True)
class Recording:
    """Observations of one episode: images uint8 [T, V, h, w, 3], states float32 [T, P]."""

    instruction: Instruction
    images: Images
    states: npt.NDArray[np.float32]


def read_recordings(
    data: Path, robot: Embodiment, tokenizer: Tokenizer, seed: int
) -> list[Recording]:
    """Up to 12 episodes of a LeRobot dataset, their first 60 steps.

    Raises:
        InputError: the dataset cannot be read.
    """
    with needs_extra("train", "Reading a dataset"):
        from libra_edge.data.examine import open_dataset
    dataset = open_dataset(data, robot, tokenizer)
    count = min(EPISODES, len(dataset.episodes))
    chosen = np.random.default_rng(seed).choice(len(dataset.episodes), count, replace=False)
    episodes = (dataset.episode(int(number)) for number in sorted(chosen))
    return [
        Recording(tokenizer.encode(e.instruction), e.images[:steps], e.states[:steps])
        for e in episodes
        # A recording has one instruction: it ends where the robot is told another.
        for steps in (min(MOST_STEPS, e.steps_of_first_instruction),)
    ]


def trajectory_detail(
    config: PolicyConfig,
    release: Engines,
    policy: Engines,
    recordings: Sequence[Recording],
    seed: int,
) -> TrajectoryDetail | None:
    """Run the release in sync mode and in async mode, M = 2 to the compiled one; then the policy.

    Args:
        config: the policy's.
        release: its engines as they are in the release.
        policy: its engines as it was trained, run in sync mode.
        recordings: episodes to step through.
        seed: of the noise and the bootstrap.

    Returns:
        None for a robot of which nothing but grippers moves, or where a run ended in FAULT.
    """
    if all(dim.kind == "gripper" for dim in config.embodiment.actions):
        return None
    most = config.chunks_per_plan
    ways: list[tuple[Literal["release", "policy"], Literal["sync", "async"], int]] = [
        ("release", "sync", most),
        *(("release", "async", chunks) for chunks in range(min(2, most), most + 1)),
        ("policy", "sync", most),
    ]
    runs: list[TrajectoryRun] = []
    first: Floats | None = None
    for name, mode, chunks in ways:
        executor = _executor(release if name == "release" else policy, config, mode, chunks)
        driven = [_smoothness(executor, r, config, seed + i) for i, r in enumerate(recordings)]
        if None in driven:
            return None
        values = np.array(driven)
        found = _facts(values, first, seed)
        runs.append(TrajectoryRun(engines=name, mode=mode, chunks_per_plan=chunks, **found))
        first = values if first is None else first
    return TrajectoryDetail(
        episodes=len(recordings),
        steps=sum(len(recording.states) for recording in recordings),
        control_hz=config.embodiment.control_hz,
        seed=seed,
        planner_delay_steps=PLANNER_DELAY_STEPS,
        refiner_delay_steps=REFINER_DELAY_STEPS,
        runs=tuple(runs),
    )


def _facts(values: Floats, first: Floats | None, seed: int) -> dict[str, Any]:
    """What a run's jerk, curvature and steps in HOLD [episodes, 3] say, against the first run's."""
    facts: dict[str, Any] = {"held_steps": int(values[:, 2].sum())}
    for i, name in enumerate(("jerk", "curvature")):
        facts[name] = bootstrap(values[:, i], np.mean, seed)
        change = None if first is None else _change(values[:, i], first[:, i], seed)
        facts[f"{name}_change"] = change
    return facts


def _executor(
    engines: Engines, config: PolicyConfig, mode: Literal["sync", "async"], chunks: int
) -> Executor:
    if mode == "sync":
        return Executor(engines, config)
    return Executor(
        engines,
        config,
        mode,
        planner_delay_steps=PLANNER_DELAY_STEPS,
        refiner_delay_steps=REFINER_DELAY_STEPS,
        refine_ahead_steps=config.chunk,
        chunks_per_plan=chunks,
    )


def _smoothness(
    executor: Executor, recording: Recording, config: PolicyConfig, seed: int
) -> tuple[float, float, int] | None:
    """Mean jerk, curvature and steps in HOLD of one episode; None where it did not run."""
    executor.reset(seed, recording.instruction)
    actions: list[npt.NDArray[Any]] = []
    held = 0
    for images, state in zip(recording.images, recording.states, strict=True):
        try:
            action, info = executor.step(images, state)
        except LibraError as error:
            if error.code != NOT_FINITE:
                raise
            return None
        if info.state == State.FAULT:
            return None
        if actions or info.state == State.RUNNING:
            actions.append(action)
            held += info.state != State.RUNNING
    if not actions:
        return None
    path = path_of(np.stack(actions), config.embodiment.actions)
    return mean_jerk(path, config.embodiment.control_hz), curvature_of(path), held


def path_of(actions: npt.NDArray[Any], dims: Sequence[ActionDim]) -> Floats:
    """Actions [T, D] as a path [T, moving dimensions], each scaled by its range."""
    columns = [
        (np.cumsum(actions[:, i], dtype=np.float64) if dim.kind == "delta" else actions[:, i])
        / (dim.upper - dim.lower)
        for i, dim in enumerate(dims)
        if dim.kind != "gripper"
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def mean_jerk(path: Floats, control_hz: float) -> float:
    """Mean length of the third derivative of a path [T, dims], per s^3; 0 below four steps."""
    jerk = np.diff(path, n=3, axis=0) * control_hz**3
    return float(np.linalg.norm(jerk, axis=1).mean()) if len(jerk) else 0.0


def curvature_of(path: Floats) -> float:
    """Angle turned (radians) per length of a path [T, dims]; steps that stand still have none."""
    moves = np.diff(path, axis=0)
    lengths = np.linalg.norm(moves, axis=1)
    moving = lengths > _STANDING
    ways = moves[moving] / lengths[moving][:, None]
    if len(ways) < 2:
        return 0.0
    angles = np.arccos(np.clip((ways[1:] * ways[:-1]).sum(axis=1), -1.0, 1.0))
    return float(angles.sum() / lengths[moving].sum())


def _change(values: Floats, first: Floats, seed: int) -> Interval:
    """The mean as a share of the first run's, less one, episode by episode the same ones."""

    def change(pairs: Floats) -> np.floating:
        after, before = pairs.mean(axis=0)
        return np.float64(after / max(before, 1e-12) - 1)

    return bootstrap(np.stack([values, first], axis=1), change, seed)
