"""Jerk and curvature on paths whose answers are known, and runs of the executor over recordings."""

from __future__ import annotations

import numpy as np
import pytest

from libra_edge.errors import LibraError
from libra_edge.parity.gates import NOT_FINITE
from libra_edge.policy.config import PolicyConfig
from libra_edge.verification.details.smoothness import (
    Recording,
    curvature_of,
    mean_jerk,
    path_of,
    trajectory_detail,
)
from tests.tiny import tiny_config, tiny_embodiment

CONFIG = tiny_config()
DIMS = tiny_embodiment().actions


def test_jerk_of_a_cubic_is_its_third_derivative() -> None:
    seconds = np.arange(50) / 20.0
    path = np.stack([2.0 * seconds**3, seconds**2], axis=1)
    assert mean_jerk(path, control_hz=20.0) == pytest.approx(12.0)
    assert mean_jerk(path[:3], control_hz=20.0) == 0.0


def test_curvature_of_a_circle_is_one_over_its_radius() -> None:
    angles = np.linspace(0, np.pi, 200)
    circle = 0.5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert curvature_of(circle) == pytest.approx(2.0, rel=1e-2)
    line = np.stack([np.arange(5.0), np.zeros(5)], axis=1)
    assert curvature_of(line) == 0.0
    assert curvature_of(np.zeros((5, 2))) == 0.0, "who stands still does not turn"


def test_a_path_sums_deltas_keeps_positions_and_leaves_grippers_out() -> None:
    actions = np.array([[0.5, 1.0, 0.0], [0.5, 2.0, 1.0]])
    # Ranges: dx 1 m (delta), q 4 rad (absolute), grip left out.
    assert path_of(actions, DIMS).tolist() == [[0.5, 0.25], [1.0, 0.5]]


class Shaky:
    """Acts smoothly along the plan's first token, but for a kick at each chunk's first step."""

    def __init__(self, kick: float, config: PolicyConfig = CONFIG) -> None:
        self._kick, self._plan_shape = kick, (config.plan_steps, config.action_dim)

    def plan(self, images, instruction, state):
        return np.full(self._plan_shape, 5, np.int32), np.ones(self._plan_shape, np.float32)

    def refine(self, images, state, intent, noise):
        actions = np.full(noise.shape, 0.1, np.float32)
        actions[0] += self._kick
        return actions


def recordings(count: int = 4, steps: int = 24) -> list[Recording]:
    words = np.zeros(CONFIG.instruction_length, np.int64)
    images = np.zeros((steps, 2, 16, 24, 3), np.uint8)
    return [Recording(words, images, np.zeros((steps, 3), np.float32)) for _ in range(count)]


def test_runs_are_the_release_in_sync_and_async_and_the_policy() -> None:
    detail = trajectory_detail(CONFIG, Shaky(0.1), Shaky(0.0), recordings(), seed=3)
    assert detail is not None
    assert (detail.episodes, detail.steps, detail.seed) == (4, 96, 3)
    ways = [(run.engines, run.mode, run.chunks_per_plan) for run in detail.runs]
    assert ways == [("release", "sync", 2), ("release", "async", 2), ("policy", "sync", 2)]
    sync, late, policy = detail.runs
    assert sync.jerk.value > 0
    assert sync.jerk_change is None
    assert policy.jerk.value == pytest.approx(0, abs=1e-3)
    assert policy.jerk_change is not None
    assert policy.jerk_change.value == pytest.approx(-1)
    assert (sync.held_steps, policy.held_steps) == (0, 0)
    assert late.jerk_change is not None
    assert late.jerk_change.low <= late.jerk_change.value <= late.jerk_change.high


def test_every_number_of_chunks_that_a_release_can_use_is_run() -> None:
    config = tiny_config(chunks_per_plan=4)
    engines = Shaky(0.1, config)
    detail = trajectory_detail(config, engines, engines, recordings(), seed=0)
    assert detail is not None
    asynchronous = [run.chunks_per_plan for run in detail.runs if run.mode == "async"]
    assert asynchronous == [2, 3, 4]


def test_nothing_but_grippers_has_no_path() -> None:
    body = CONFIG.embodiment.model_copy(update={"actions": DIMS[2:]})
    config = CONFIG.model_copy(update={"embodiment": body})
    assert trajectory_detail(config, Shaky(0), Shaky(0), recordings(), seed=0) is None


class Broken(Shaky):
    """Gives what is not a number, or refuses to, from the second chunk on."""

    def __init__(self, *, refuse: bool) -> None:
        super().__init__(0.1)
        self._refuse, self._calls = refuse, 0

    def refine(self, images, state, intent, noise):
        self._calls += 1
        if self._calls < 2:
            return super().refine(images, state, intent, noise)
        if self._refuse:
            raise LibraError(NOT_FINITE, "The refiner gave NaN.", "Do not run it.")
        return np.full(noise.shape, np.nan, np.float32)


@pytest.mark.parametrize("refuse", [False, True])
def test_a_run_that_ends_in_fault_has_no_trajectory(refuse: bool) -> None:
    broken = Broken(refuse=refuse)
    assert trajectory_detail(CONFIG, broken, Shaky(0.1), recordings(), seed=0) is None
