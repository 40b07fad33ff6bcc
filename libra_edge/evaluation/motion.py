"""What a robot feels of a policy: how smooth its commands are, and how old what they saw is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.data.types import FloatArray
from libra_edge.policy.config import Embodiment
from libra_edge.policy.executor import State

Doubles = npt.NDArray[np.float64]
# Shorter than this share of a dimension's range a step has no direction.
_STILL = 1e-6


@dataclass(frozen=True)
class Moment:
    """One control step of an episode.

    Attributes:
        chunk: number of the chunk that the action is from; None without one.
        seen_steps: control steps since the observation that it was made from; None where nobody
            tells.
        plan_age_steps: of the plan; None without one.
        state: RUNNING or HOLD.
    """

    chunk: int | None = None
    seen_steps: int | None = None
    plan_age_steps: int | None = None
    state: State = State.RUNNING


@dataclass(frozen=True)
class Motion:
    """How the commands of one or more episodes went.

    Dimensions count in units of their range, upper minus lower; a delta's path is the sum of its
    actions. What was not told, or never happened, is None.

    Attributes:
        mean_jerk: mean length of the third difference of the path, per s³.
        path_curvature: angle that the path turns, over its length; rad per range.
        longest_gap_s: longest time between an action and the observation that it was made from, or
            that it stayed without one.
        boundary_mean, boundary_max: change of the command from one chunk to the next, of the
            dimension that changes most, in units of its `max_step_change` (or of its range).
        inside_mean: the same within chunks.
        held_share: share of the control steps that were HOLD.
    """

    mean_jerk: float | None
    path_curvature: float | None
    longest_gap_s: float | None
    boundary_mean: float | None
    boundary_max: float | None
    inside_mean: float | None
    held_share: float


class MotionMeter:
    """Takes in the control steps of one episode.

    Args:
        robot: for units, limits and the control rate.
    """

    def __init__(self, robot: Embodiment) -> None:
        dims = robot.actions
        self._hz = robot.control_hz
        self._range = np.array([d.upper - d.lower for d in dims])
        self._unit = np.array([d.max_step_change or d.upper - d.lower for d in dims])
        self._delta = np.array([d.kind == "delta" for d in dims])
        self._actions: list[FloatArray] = []
        self._moments: list[Moment] = []

    def add(self, action: FloatArray, moment: Moment) -> None:
        """One control step: the action [D] that was sent, and how it came about."""
        self._actions.append(np.array(action))
        self._moments.append(moment)

    def motion(self) -> Motion:
        """What they come to."""
        actions = np.array(self._actions, dtype=np.float64).reshape(-1, len(self._range))
        scaled = actions / self._range
        path = np.where(self._delta, np.cumsum(scaled, axis=0), scaled)
        boundary, inside = self._changes(actions)
        held = sum(moment.state is State.HOLD for moment in self._moments)
        return Motion(
            mean_jerk=_mean(np.linalg.norm(np.diff(path, 3, axis=0), axis=1) * self._hz**3),
            path_curvature=_curvature(path),
            longest_gap_s=self._longest_gap(),
            boundary_mean=_mean(boundary),
            boundary_max=max(boundary, default=None),
            inside_mean=_mean(inside),
            held_share=held / max(1, len(self._moments)),
        )

    def _changes(self, actions: Doubles) -> tuple[list[float], list[float]]:
        """Change of each action from the one before: between chunks, and within them."""
        changes = (np.abs(np.diff(actions, axis=0)) / self._unit).max(axis=1, initial=0)
        boundary: list[float] = []
        inside: list[float] = []
        for change, before, now in zip(changes, self._moments, self._moments[1:], strict=False):
            if before.chunk is None or now.chunk is None:
                continue
            (inside if before.chunk == now.chunk else boundary).append(float(change))
        return boundary, inside

    def _longest_gap(self) -> float | None:
        """Where the robot is held, the observation of its last action goes on ageing."""
        longest: int | None = None
        gap: int | None = None
        for moment in self._moments:
            if moment.seen_steps is not None:
                gap = moment.seen_steps
            elif moment.state is State.HOLD:
                gap = None if gap is None else gap + 1
            else:
                return None
            longest = gap if longest is None else max(longest, gap or 0)
        return None if longest is None else longest / self._hz


def _mean(values: Sequence[float] | Doubles) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _curvature(path: Doubles) -> float | None:
    """Angles between steps of a path [T, D] over the length of all of them."""
    steps = np.diff(path, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    moving = lengths > _STILL
    if moving.sum() < 2:
        return None
    directions = steps[moving] / lengths[moving, None]
    cosines = np.clip((directions[1:] * directions[:-1]).sum(axis=1), -1.0, 1.0)
    return float(np.arccos(cosines).sum() / lengths[moving].sum())


def combined(motions: Sequence[Motion]) -> Motion:
    """Of several episodes: means of means, the largest of the largest."""

    def known(name: str) -> list[float]:
        found = (getattr(motion, name) for motion in motions)
        return [value for value in found if value is not None]

    largest = {name: max(known(name), default=None) for name in ("longest_gap_s", "boundary_max")}
    names = ("mean_jerk", "path_curvature", "boundary_mean", "inside_mean", "held_share")
    return Motion(**{name: _mean(known(name)) for name in names}, **largest)  # type: ignore[arg-type]


def motion_rows(motion: Motion) -> Iterator[tuple[str, str]]:
    """What was measured, in words."""

    def said(value: float | None, unit: str) -> str:
        return "not known" if value is None else f"{value:.3g} {unit}"

    yield "mean jerk", said(motion.mean_jerk, "ranges/s³")
    yield "path curvature", said(motion.path_curvature, "rad per range")
    yield "longest gap between observation and action", said(motion.longest_gap_s, "s")
    boundary, largest = motion.boundary_mean, said(motion.boundary_max, "at most")
    words = f"{said(boundary, 'limits')}, {largest}, {said(motion.inside_mean, 'within chunks')}"
    yield "change from chunk to chunk", words
    yield "held", f"{motion.held_share:.1%} of the steps"


def moment_of(driver: Any, before: Moment | None) -> Moment:
    """What a controller tells of the control step that it just made.

    Args:
        driver: a controller; one that tells nothing counts as one chunk that nobody knows the age
            of.
        before: the step before, in this episode.
    """
    tick = getattr(driver, "tick_info", None)
    if tick is not None:
        running = tick.state is State.RUNNING
        return Moment(
            chunk=tick.chunk if running else None,
            seen_steps=tick.seen_steps - 1 if running and tick.seen_steps else None,
            plan_age_steps=tick.plan_age_steps if running else None,
            state=tick.state,
        )
    step = getattr(driver, "step_info", None)
    if step is None:
        return Moment()
    # In sync mode a chunk begins with the refiner, on the observation of its step.
    first = step.refiner_ran or before is None or before.chunk is None
    chunk = 0 if before is None or before.chunk is None else before.chunk + step.refiner_ran
    seen = 0 if first or before is None or before.seen_steps is None else before.seen_steps + 1
    age = step.plan_age_steps if step.plan_age_steps >= 0 else None
    return Moment(chunk, seen, age, step.state)
