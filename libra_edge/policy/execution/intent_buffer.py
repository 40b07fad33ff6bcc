"""Planned intents, aligned by control step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]


class IntentBuffer:
    """Planned intents, aligned by control step."""

    def __init__(self, dims: int) -> None:
        self._intents: Tokens = np.zeros((0, dims), dtype=np.int32)
        self._first = 0
        self.plan_step: int | None = None

    def replace(self, plan_step: int, intents: Tokens, now: int) -> bool:
        """Take a plan for steps plan_step, plan_step + 1, …, of which some may be past `now`.

        Returns:
            False, leaving the buffer as it was, for a plan that is not newer than the present one
            or lies wholly in the past.
        """
        stale = self.plan_step is not None and plan_step <= self.plan_step
        if stale or plan_step + len(intents) <= now:
            return False
        self._intents, self._first = intents.copy(), plan_step
        self.plan_step = plan_step
        return True

    def left(self, now: int) -> int:
        """Number of steps, from `now` on, that are planned without a gap."""
        if now < self._first:
            return 0
        return max(0, self.end - now)

    @property
    def end(self) -> int:
        """The step after the last planned one."""
        return self._first + len(self._intents)

    def take(self, now: int, steps: int) -> Tokens | None:
        """The intents of [now, now + steps), or None where they are not all planned."""
        if self.left(now) < steps:
            return None
        offset = now - self._first
        return self._intents[offset : offset + steps].copy()
