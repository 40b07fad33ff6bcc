"""What a robot feels of a policy, by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from libra_edge.evaluation.closed_loop import plan_episodes, run
from libra_edge.evaluation.motion import (
    Moment,
    Motion,
    MotionMeter,
    combined,
    moment_of,
    motion_rows,
)
from libra_edge.policy.config import Embodiment
from libra_edge.policy.executor import State
from tests.evaluation.fake_simulator import LineWorld, Obedient

HELD = Moment(state=State.HOLD)


def robot(*changes: dict[str, Any]) -> Embodiment:
    plain = {"unit": "m", "kind": "absolute", "lower": -1.0, "upper": 1.0}
    dims = [plain | {"name": f"a{i}"} | change for i, change in enumerate(changes)]
    content = LineWorld().embodiment().model_dump() | {"actions": dims}
    return Embodiment.model_validate(content)


def motion(embodiment: Embodiment, path: Any, moments: list[Moment] | None = None) -> Motion:
    meter = MotionMeter(embodiment)
    for action, moment in zip(path, moments or [Moment()] * len(path), strict=True):
        meter.add(np.array(action, dtype=np.float32), moment)
    return meter.motion()


def test_jerk_is_the_third_difference_in_ranges() -> None:
    # Differences of a cube are constant: 6 units, of a range of 200, 10 times a second.
    wide = {"lower": -100.0, "upper": 100.0}
    cube = [[float(t**3)] for t in range(5)]
    assert motion(robot(wide), cube).mean_jerk == pytest.approx(6 / 200 * 1000)
    assert motion(robot(wide), [[float(t)] for t in range(5)]).mean_jerk == pytest.approx(0)


def test_a_delta_is_the_change_of_its_path() -> None:
    steps = [[1.0], [4.0], [9.0], [16.0]]
    wide = {"kind": "delta", "lower": -50.0, "upper": 50.0}
    # The sums are 1, 5, 14, 30: their third difference is 2 throughout.
    assert motion(robot(wide), steps).mean_jerk == pytest.approx(2 / 100 * 1000)


def test_curvature_of_a_square_and_of_a_line() -> None:
    square = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]
    # Three right angles over four sides of half a range.
    found = motion(robot({}, {}), square).path_curvature
    assert found == pytest.approx(3 * math.pi / 2 / 2)
    assert motion(robot({}, {}), [[0, 0], [0.1, 0.1], [0.3, 0.3]]).path_curvature == pytest.approx(
        0, abs=1e-3
    )
    assert motion(robot({}, {}), [[0.5, 0.5]] * 5).path_curvature is None


def test_changes_between_and_within_chunks_in_units_of_the_limits() -> None:
    limited = {"max_step_change": 0.5}
    path = [[0.0, 0.0], [0.1, 0.0], [0.3, 1.0], [0.3, 0.0], [0.9, 0.0]]
    moments = [Moment(0), Moment(0), Moment(1), HELD, Moment(2)]
    found = motion(robot(limited, {}), path, moments)
    # Of the second dimension, without a limit, half a range; around a hold nothing is counted.
    assert (found.boundary_mean, found.boundary_max) == pytest.approx((0.5, 0.5))
    assert found.inside_mean == pytest.approx(0.2)
    assert found.held_share == pytest.approx(0.2)


def test_the_longest_gap_grows_while_the_robot_is_held() -> None:
    moments = [HELD, Moment(0, 2), Moment(0, 3), HELD, HELD, Moment(1, 1)]
    assert motion(robot({}), [[0.0]] * 6, moments).longest_gap_s == pytest.approx(0.5)
    assert motion(robot({}), [[0.0]] * 2, [HELD, HELD]).longest_gap_s is None
    untold = [Moment(0, 2), Moment(0, None)]
    assert motion(robot({}), [[0.0]] * 2, untold).longest_gap_s is None


def test_many_episodes() -> None:
    nothing = Motion(None, None, None, None, None, None, 1.0)
    some = Motion(2.0, 1.0, 0.5, 0.25, 0.75, 0.125, 0.0)
    other = Motion(4.0, 3.0, 0.25, 0.75, 0.5, 0.375, 0.0)
    found = combined([nothing, some, other])
    assert found == Motion(3.0, 2.0, 0.5, 0.5, 0.75, 0.25, pytest.approx(1 / 3))
    assert combined([nothing]).mean_jerk is None
    words = dict(motion_rows(found))
    assert words["longest gap between observation and action"] == "0.5 s"
    assert dict(motion_rows(nothing))["mean jerk"] == "not known"


def test_moments_of_sync_mode_count_from_each_refiner_call() -> None:
    moment, found = None, []
    for ran in (True, False, False, True, False):
        info = SimpleNamespace(refiner_ran=ran, plan_age_steps=-1, state=State.RUNNING)
        moment = moment_of(SimpleNamespace(step_info=info), moment)
        found.append((moment.chunk, moment.seen_steps, moment.plan_age_steps))
    assert found == [(0, 0, None), (0, 1, None), (0, 2, None), (1, 0, None), (1, 1, None)]


def test_moments_of_async_mode_are_what_the_tick_tells() -> None:
    def tick(**changes: Any) -> Moment:
        plain = {"chunk": 3, "seen_steps": 5, "plan_age_steps": 7, "state": State.RUNNING}
        return moment_of(SimpleNamespace(tick_info=SimpleNamespace(**plain | changes)), None)

    assert tick() == Moment(3, 4, 7)
    assert tick(seen_steps=0) == Moment(3, None, 7), "an older library does not tell"
    assert tick(state=State.HOLD) == HELD


def test_every_episode_has_its_motion() -> None:
    results = run(Obedient, LineWorld, plan_episodes(LineWorld(), ("left",), 2))
    for result in results:
        assert result.motion is not None
        assert result.motion.mean_jerk is not None
        assert result.motion.boundary_mean is None, "this one tells nothing of chunks"
