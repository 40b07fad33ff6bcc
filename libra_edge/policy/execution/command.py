"""The last step before the robot: limits of every dimension, and the action that holds it still.

`src/control/command.cc` of the runtime does the same arithmetic in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from libra_edge.policy.actions import hold_action, limits, measured_by
from libra_edge.policy.config import ActionDim, StateDim
from libra_edge.policy.execution.braking import Bounds, Doubles, Motion, next_position

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Limited:
    """What the limits made of one action, per dimension: bool [D] each."""

    action: Floats | None
    clamped: Flags
    slowed: Flags


class Command:
    """Remembers what was sent, as limits on changes need it.

    None of the limits gives way to another: where acceleration or jerk is limited, a dimension
    brakes in time to come to rest inside its limits, and where it cannot follow, at what is wanted.

    After a hold it begins at rest: a dimension that a state measures where it is, if nothing was
    sent yet or it was moved by more than a step from what was sent, all others at the last command.
    One that was never sent nor measured is bound by position alone. On the way to what is wanted
    then, being slowed is no fault.

    Args:
        dims: the action.
        state: the robot's, which may measure absolute dimensions: same name, same unit.
    """

    def __init__(self, dims: Sequence[ActionDim], state: Sequence[StateDim] = ()) -> None:
        self._dims = dims
        self._lower, self._upper = limits(dims)
        self._step, self._bend, self._jerk = (
            np.array([getattr(d, name) or float("inf") for d in dims], dtype=np.float32)
            for name in ("max_step_change", "max_acceleration", "max_jerk")
        )
        self._faults = np.array([d.on_limit == "fault" for d in dims])
        self._delta = np.array([d.kind == "delta" for d in dims])
        self._measured = measured_by(dims, state)
        self._brakes = np.flatnonzero(np.isfinite(self._bend) | np.isfinite(self._jerk))
        each = (self._lower, self._upper, self._step, self._bend, self._jerk)
        self._bounds = Bounds(*(limit[self._brakes].astype(np.float64) for limit in each))
        # Before any command, holding an absolute dimension means its value nearest zero.
        self.last: Floats = np.clip(np.zeros_like(self._lower), self._lower, self._upper)
        self._change: Doubles = np.zeros(len(dims))
        self._bends: Doubles = np.zeros(len(dims))
        self._sent, self._rests = False, True
        self._arriving: Flags = np.ones(len(dims), dtype=bool)

    def send(self, wanted: Floats, state: Floats | None = None) -> Limited:
        """The action nearest to `wanted` [D] within all limits; None where that is a fault.

        Args:
            wanted: physical units.
            state: the newest one [P]; it counts after a hold alone.
        """
        last, known = self._beginning(state) if self._rests else (self.last, None)
        inside = np.clip(wanted, self._lower, self._upper)
        reached = self._reach(inside, last)
        action = reached if known is None else np.where(known, reached, inside)
        clamped, slowed = inside != wanted, action != inside
        arriving = (self._arriving | self._rests) & slowed
        if (self._faults & (clamped | (slowed & ~arriving))).any():
            return Limited(None, clamped, slowed)
        if known is not None:
            last = np.where(known, last, action)
        change = action.astype(np.float64) - last.astype(np.float64)
        self._bends, self._change = change - self._change, change
        self.last, self._arriving = action, arriving
        self._sent, self._rests = True, False
        return Limited(action, clamped, slowed)

    def _beginning(self, state: Floats | None) -> tuple[Floats, Flags]:
        """Where each dimension is as it begins to move, and whether that is known."""
        known = self._delta | self._sent
        if state is None:
            return self.last, known
        measured = self._measured >= 0
        place = np.clip(state[self._measured], self._lower, self._upper)
        moved = measured & (np.abs(place - self.last) > self._step)
        return np.where(moved | (measured & ~known), place, self.last), known | measured

    def _reach(self, inside: Floats, last: Floats) -> Floats:
        low = np.maximum(self._lower, last - self._step)
        high = np.minimum(self._upper, last + self._step)
        action: Floats = np.clip(inside, low, high)
        if len(some := self._brakes):
            near, at = (array[some].astype(np.float64) for array in (inside, last))
            motion = Motion(at, self._change[some], self._bends[some])
            ends = (bound[some].astype(np.float64) for bound in (low, high))
            action[some] = next_position(self._bounds, motion, near, *ends).astype(np.float32)
        return action

    def hold(self) -> Floats:
        """The hold action [D]: zero for a delta dimension, else the last command."""
        action = hold_action(self._dims, self.last)
        if self._sent:
            self.last = action
        self._rests = True
        self._change, self._bends = np.zeros(len(action)), np.zeros(len(action))
        return action
