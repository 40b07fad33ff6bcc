"""The last step before the robot, by hand: what is sent, what is limited, what holds still.

Numbers are sums of halves, so that every comparison is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libra_edge.policy.actions import limits
from libra_edge.policy.config import ActionDim, StateDim
from libra_edge.policy.execution.command import Command, Floats


def dim(**changes: Any) -> ActionDim:
    plain = {"name": "q", "unit": "rad", "kind": "absolute", "lower": -4.0, "upper": 4.0}
    return ActionDim.model_validate(plain | changes)


def of(*values: float) -> Floats:
    return np.array(values, dtype=np.float32)


def sent(command: Command, *values: float) -> list[float]:
    action = command.send(of(*values)).action
    assert action is not None
    assert action.dtype == np.float32
    return action.tolist()


def flags(command: Command, *values: float) -> tuple[list[bool], list[bool]]:
    limited = command.send(of(*values))
    return limited.clamped.tolist(), limited.slowed.tolist()


def test_what_is_inside_is_sent_as_it_is() -> None:
    command = Command([dim(), dim()])
    for wanted in ([4.0, -4.0], [-4.0, 4.0], [0.5, 0.0]):
        limited = command.send(of(*wanted))
        assert limited.action is not None
        assert limited.action.tolist() == wanted
        assert not limited.clamped.any()
        assert not limited.slowed.any()
        assert command.last.tolist() == wanted


def test_position_is_clamped_at_both_ends_and_said_so() -> None:
    command = Command([dim(), dim(lower=-1.0), dim(upper=2.0)])
    limited = command.send(of(4.5, -1.5, 2.0))
    assert limited.action is not None
    assert limited.action.tolist() == [4.0, -1.0, 2.0]
    assert limited.clamped.tolist() == [True, True, False]
    assert limited.slowed.tolist() == [False, False, False]


@pytest.mark.parametrize(
    ("lower", "upper", "rest"), [(-4.0, 4.0, 0.0), (1.0, 4.0, 1.0), (-4.0, -2.0, -2.0)]
)
def test_before_any_command_it_holds_the_value_nearest_zero(
    lower: float, upper: float, rest: float
) -> None:
    command = Command([dim(lower=lower, upper=upper)])
    assert command.last.tolist() == [rest]
    assert command.hold().tolist() == [rest]


@pytest.mark.parametrize("hold_first", [False, True])
def test_the_first_command_is_bound_by_position_alone(hold_first: bool) -> None:
    command = Command([dim(max_step_change=0.5, max_acceleration=0.25)])
    if hold_first:
        command.hold()
    assert sent(command, 3.0) == [3.0]
    assert sent(command, 4.0) == [3.25], "no change before the first command"


@pytest.mark.parametrize(("wanted", "expected"), [(2.0, 0.5), (-2.0, -0.5)])
def test_change_is_bound_by_what_was_sent(wanted: float, expected: float) -> None:
    command = Command([dim(max_step_change=0.5)])
    assert sent(command, 0.0) == [0.0]
    assert flags(command, wanted) == ([False], [True])
    assert command.last.tolist() == [expected]
    assert sent(command, wanted) == [2 * expected]


def test_a_change_of_exactly_the_limit_is_not_slowed() -> None:
    command = Command([dim(max_step_change=0.5, max_acceleration=0.5)])
    sent(command, 0.0)
    assert flags(command, 0.5) == ([False], [False])
    assert flags(command, 1.0) == ([False], [False])
    assert flags(command, 1.5) == ([False], [False])


def test_change_never_leads_out_of_the_position() -> None:
    command = Command([dim(max_step_change=3.0)])
    sent(command, 3.0)
    assert sent(command, 9.0) == [4.0]
    assert sent(command, -9.0) == [1.0]
    assert sent(command, -9.0) == [-2.0]
    assert sent(command, -9.0) == [-4.0]


def test_acceleration_is_bound_around_the_last_change() -> None:
    command = Command([dim(max_acceleration=0.25)])
    sent(command, 0.0)
    assert [sent(command, 4.0)[0] for _ in range(3)] == [0.25, 0.75, 1.5]
    # Turning round takes as long: the change falls by a quarter a step.
    assert [sent(command, -4.0)[0] for _ in range(4)] == [2.0, 2.25, 2.25, 2.0]


def test_it_brakes_in_time_for_position_and_change() -> None:
    command = Command([dim(max_step_change=1.0, max_acceleration=0.25)])
    sent(command, 0.0)
    reached = [sent(command, 4.0)[0] for _ in range(8)]
    assert reached == [0.25, 0.75, 1.5, 2.5, 3.25, 3.75, 4.0, 4.0]
    command = Command([dim(max_step_change=0.5, max_acceleration=2.0)])
    sent(command, 0.0)
    assert [sent(command, 4.0)[0] for _ in range(2)] == [0.5, 1.0], "the change is hard"


def test_it_comes_to_rest_at_what_is_wanted_and_not_past_it() -> None:
    command = Command([dim(max_step_change=0.5, max_acceleration=0.125, max_jerk=0.03125)])
    sent(command, -4.0)
    run = [sent(command, 1.0)[0] for _ in range(60)]
    assert max(run) == 1.0
    assert run[-5:] == [1.0] * 5


def test_dimensions_do_not_mix() -> None:
    command = Command([dim(max_step_change=0.5), dim(max_acceleration=0.25), dim()])
    sent(command, 0.0, 0.0, 0.0)
    assert sent(command, 3.0, 3.0, 3.0) == [0.5, 0.25, 3.0]
    assert flags(command, -3.0, 3.0, 5.0) == ([False, False, True], [True, True, False])
    assert command.last.tolist() == [0.0, 0.75, 4.0]


def test_clamped_and_slowed_at_once() -> None:
    command = Command([dim(max_step_change=0.5)])
    sent(command, 0.0)
    assert flags(command, 9.0) == ([True], [True])


@pytest.mark.parametrize("wanted", [5.0, 3.0])
def test_a_fault_sends_nothing_and_remembers_nothing(wanted: float) -> None:
    command = Command([dim(), dim(on_limit="fault", max_step_change=0.5)])
    sent(command, 0.0, 0.25)
    limited = command.send(of(1.0, wanted))
    assert limited.action is None
    assert (bool(limited.clamped[1]), bool(limited.slowed[1])) == (wanted > 4, True)
    assert command.last.tolist() == [0.0, 0.25]
    assert sent(command, 1.0, 0.75) == [1.0, 0.75]


def test_a_fault_before_any_command_leaves_the_next_the_first() -> None:
    command = Command([dim(on_limit="fault", max_step_change=0.5)])
    assert command.send(of(4.5)).action is None
    assert sent(command, 4.0) == [4.0]


def test_another_dimensions_limit_is_no_fault() -> None:
    command = Command([dim(on_limit="fault"), dim()])
    assert sent(command, 4.0, 5.0) == [4.0, 4.0]


def test_holding_keeps_what_is_absolute_and_stops_what_is_a_delta() -> None:
    command = Command([dim(), dim(kind="delta"), dim(kind="gripper")])
    sent(command, 1.0, 2.0, 3.0)
    held = command.hold()
    assert held.dtype == np.float32
    assert held.tolist() == [1.0, 0.0, 3.0]
    assert command.last.tolist() == [1.0, 0.0, 3.0]


def test_a_hold_is_a_command_for_the_limits_that_follow() -> None:
    command = Command([dim(max_acceleration=0.25), dim(kind="delta", max_step_change=0.5)])
    sent(command, 0.0, 2.0)
    sent(command, 0.25, 2.0)
    assert command.hold().tolist() == [0.25, 0.0]
    # The absolute dimension stands still after it, the delta begins at zero again.
    assert sent(command, 4.0, 2.0) == [0.5, 0.5]


def test_a_hold_before_any_command_is_none() -> None:
    command = Command([dim(kind="delta", lower=1.0, max_acceleration=0.25)])
    assert command.hold().tolist() == [0.0]
    assert command.last.tolist() == [1.0], "nothing was sent yet"
    assert sent(command, 4.0) == [1.25], "a robot that stands still sets out from there"


STATE = (StateDim(name="other", unit="m"), StateDim(name="q", unit="rad"))


def at(place: float) -> Floats:
    return of(9.0, place)


def test_the_first_command_sets_out_from_where_the_robot_is() -> None:
    command = Command([dim(max_step_change=0.5)], STATE)
    limited = command.send(of(3.0), at(1.0))
    assert limited.action is not None
    assert (limited.action.tolist(), limited.slowed.tolist()) == ([1.5], [True])
    # Where it is measured to be counts after a hold alone.
    again = command.send(of(3.0), at(-2.0)).action
    assert again is not None
    assert again.tolist() == [2.0]


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"kind": "gripper"}, STATE),
        ({"name": "r"}, STATE),
        ({"unit": "deg"}, STATE),
        ({}, ()),
    ],
)
def test_what_nothing_measures_is_free_at_first(
    changes: dict[str, Any], state: tuple[StateDim, ...]
) -> None:
    command = Command([dim(max_step_change=0.5, **changes)], state)
    action = command.send(of(3.0), at(1.0)).action
    assert action is not None
    assert action.tolist() == [3.0]


@pytest.mark.parametrize(("place", "expected"), [(0.75, 0.5), (0.5, 0.5), (2.0, 1.5), (9.0, 3.5)])
def test_after_a_hold_a_robot_that_was_moved_sets_out_from_there(
    place: float, expected: float
) -> None:
    command = Command([dim(max_step_change=0.5)], STATE)
    command.send(of(1.0), at(1.0))
    command.hold()
    # Within a step of what it was told it stands where it was told to.
    action = command.send(of(-3.0), at(place)).action
    assert action is not None
    assert action.tolist() == [expected]


def test_being_slowed_on_the_way_from_a_hold_is_no_fault_and_later_is() -> None:
    command = Command([dim(on_limit="fault", max_step_change=0.5)], STATE)
    assert [command.send(of(2.0), at(1.0)).action for _ in range(2)] == [of(1.5), of(2.0)]
    assert command.send(of(2.0), at(1.0)).action is not None
    assert command.send(of(3.0), at(1.0)).action is None
    assert command.send(of(5.0), at(1.0)).action is None, "a position is none on the way either"
    command.hold()
    assert command.send(of(3.0), at(2.0)).action == of(2.5)


def random_dims(rng: np.random.Generator, count: int) -> tuple[list[ActionDim], list[StateDim]]:
    """Any limits, each but one in three times; every dimension is measured."""
    dims = []
    for number in range(count):
        lower, wide = float(rng.uniform(-2, 0)), float(rng.uniform(0.5, 4))
        step = float(rng.uniform(0.005, 0.5))
        limits = {
            "max_step_change": step,
            "max_acceleration": step * float(rng.uniform(0.05, 1.5)),
            "max_jerk": step * float(rng.uniform(0.02, 1.0)),
        }
        limits = {name: value for name, value in limits.items() if rng.random() > 1 / 3}
        dims.append(dim(name=f"q{number}", lower=lower, upper=lower + wide, **limits))
    return dims, [StateDim(name=d.name, unit=d.unit) for d in dims]


def exceeded(dims: list[ActionDim], run: Floats) -> dict[str, int]:
    """Dimensions that left a limit, of runs [steps, D] that began at rest, by its name."""
    path = np.concatenate([run[:1], run[:1], run]).astype(np.float64)
    # Commands are float32: their differences are exact to its roundings alone.
    slack = 8 * np.spacing(np.abs(run).max(axis=0, initial=1).astype(np.float32))
    found = {}
    for order, name in enumerate(("max_step_change", "max_acceleration", "max_jerk"), 1):
        most = np.array([getattr(d, name) or np.inf for d in dims])
        worst = np.abs(np.diff(path, order, axis=0)).max(axis=0)
        found[name] = int((worst > most * (1 + 1e-6) + slack).sum())
    ends = [np.array([getattr(d, name) for d in dims], np.float32) for name in ("lower", "upper")]
    found["position"] = int(((run < ends[0]) | (run > ends[1])).any(axis=0).sum())
    return found


@pytest.mark.parametrize("kind", ["jumping", "smooth", "leaping away"])
def test_no_start_of_any_policy_leaves_a_limit(kind: str) -> None:
    """10⁵ starts from rest, in a pose a step away from the first action or anywhere."""
    count, steps = 34_000, 24
    rng = np.random.default_rng(len(kind))
    dims, state = random_dims(rng, count)
    command = Command(dims, state)
    lower, upper = limits(dims)
    wanted = rng.uniform(lower, upper).astype(np.float32)
    pace = np.array([d.max_step_change or 0.1 for d in dims], np.float32)
    near = rng.random(count) < 0.5
    place = np.where(near, wanted + rng.choice([-1, 1], count) * pace, rng.uniform(lower, upper))
    place = np.clip(place, lower, upper).astype(np.float32)
    run = [place]
    for _ in range(steps):
        action = command.send(wanted, place).action
        assert action is not None
        run.append(action)
        if kind == "jumping":
            wanted = rng.uniform(lower - 0.5, upper + 0.5).astype(np.float32)
        elif kind == "smooth":
            wanted = (wanted + rng.normal(0, 0.5, count) * pace).astype(np.float32)
        else:
            wanted = np.where(rng.random(count) < 0.2, lower + upper - wanted, wanted)
    assert exceeded(dims, np.stack(run)) == dict.fromkeys(
        ("max_step_change", "max_acceleration", "max_jerk", "position"), 0
    )


values = st.lists(st.integers(-24, 24).map(lambda i: i / 4), min_size=2, max_size=12)


@given(values, st.sampled_from([0.25, 1.0, 3.0]), st.sampled_from([0.25, 1.0, 3.0]))
def test_every_limit_holds_for_any_run(wanted: Sequence[float], step: float, bend: float):  # type: ignore[no-untyped-def]
    command = Command([dim(max_step_change=step, max_acceleration=bend)])
    run = [sent(command, value)[0] for value in wanted]
    assert all(-4 <= value <= 4 for value in run)
    changes = np.diff([run[0], *run])
    assert np.abs(changes).max() <= step
    assert np.abs(np.diff(changes)).max() <= bend
