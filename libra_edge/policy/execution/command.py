"""The last step before the robot: limits of every dimension, and the action that holds it still.

`src/control/command.cc` of the runtime does the same arithmetic in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from libra_edge.policy.actions import hold_action, limits
from libra_edge.policy.config import ActionDim

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

    Position and change per step are hard; where the change of the change cannot be kept with them,
    it gives way. The first command has no predecessor and is bound by position alone.
    """

    def __init__(self, dims: Sequence[ActionDim]) -> None:
        self._dims = dims
        self._lower, self._upper = limits(dims)
        infinite = float("inf")
        self._step = np.array([d.max_step_change or infinite for d in dims], dtype=np.float32)
        self._bend = np.array([d.max_acceleration or infinite for d in dims], dtype=np.float32)
        self._faults = np.array([d.on_limit == "fault" for d in dims])
        # Before any command, holding an absolute dimension means its value nearest zero.
        self.last: Floats = np.clip(np.zeros_like(self._lower), self._lower, self._upper)
        self._change = np.zeros_like(self._lower)
        self._sent = False

    def send(self, wanted: Floats) -> Limited:
        """The action nearest to `wanted` [D] within all limits; None where that is a fault."""
        inside = np.clip(wanted, self._lower, self._upper)
        action = inside
        if self._sent:
            low = np.maximum(self._lower, self.last - self._step)
            high = np.minimum(self._upper, self.last + self._step)
            drift = self.last + self._change
            soft_low = np.clip(drift - self._bend, low, high)
            soft_high = np.clip(drift + self._bend, low, high)
            action = np.clip(inside, soft_low, soft_high)
        clamped, slowed = inside != wanted, action != inside
        if (self._faults & (clamped | slowed)).any():
            return Limited(None, clamped, slowed)
        self._remember(action)
        self._sent = True
        return Limited(action, clamped, slowed)

    def hold(self) -> Floats:
        """The hold action [D]: zero for a delta dimension, else the last command."""
        action = hold_action(self._dims, self.last)
        if self._sent:
            self._remember(action)
        return action

    def _remember(self, action: Floats) -> None:
        self._change = action - self.last if self._sent else np.zeros_like(action)
        self.last = action
