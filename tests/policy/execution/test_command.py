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

from libra_edge.policy.config import ActionDim
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


def test_acceleration_gives_way_to_position_and_change() -> None:
    command = Command([dim(max_step_change=1.0, max_acceleration=0.25)])
    sent(command, 0.0)
    reached = [sent(command, 4.0)[0] for _ in range(6)]
    assert reached == [0.25, 0.75, 1.5, 2.5, 3.5, 4.0]
    # The drift alone would lead to 4.5 - 0.25: the position is hard.
    assert sent(command, 4.0) == [4.0]
    command = Command([dim(max_step_change=0.5, max_acceleration=2.0)])
    sent(command, 0.0)
    assert [sent(command, 4.0)[0] for _ in range(2)] == [0.5, 1.0], "the change is hard"


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
    assert sent(command, 4.0) == [4.0]


values = st.lists(st.integers(-24, 24).map(lambda i: i / 4), min_size=2, max_size=12)


@given(values, st.sampled_from([0.25, 1.0, 3.0]), st.sampled_from([0.25, 1.0, 3.0]))
def test_position_and_change_hold_for_any_run(wanted: Sequence[float], step: float, bend: float):  # type: ignore[no-untyped-def]
    command = Command([dim(max_step_change=step, max_acceleration=bend)])
    run = [sent(command, value)[0] for value in wanted]
    assert all(-4 <= value <= 4 for value in run)
    changes = np.diff([run[0], *run])
    assert np.abs(changes).max() <= step
    for before, change, value in zip(changes, changes[1:], run[1:], strict=False):
        hard = abs(value) == 4 or abs(change) == step
        assert abs(change - before) <= bend or hard
