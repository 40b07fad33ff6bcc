"""The reference execution semantics, in virtual time (NumPy).

Control steps are counted from zero at reset; nothing here reads a clock. Every runtime has to
give these actions for these observations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from libra_edge.policy.actions import hold_action, limits
from libra_edge.policy.config import PolicyConfig
from libra_edge.policy.noise import chunk_noise

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Images = npt.NDArray[np.uint8]
Instruction = npt.NDArray[np.int64]


class Engines(Protocol):
    """Anything that runs the two graphs: PyTorch, ONNX Runtime, the C ABI."""

    def plan(self, images: Images, instruction: Instruction, state: Floats) -> tuple[Tokens, Any]:
        """Images uint8 [V, h, w, 3], int64 [T], float32 [P] → intent int32 [L, D], margin."""
        ...

    def refine(self, images: Images, state: Floats, intent: Tokens, noise: Floats) -> Floats:
        """Images, state, intent int32 [H, D], noise float32 [H, D] → actions float32 [H, D]."""
        ...


class State(IntEnum):
    """What the policy is doing; the numbers are those of the C ABI."""

    RUNNING = 0
    HOLD = 1
    FAULT = 2


@dataclass(frozen=True)
class StepInfo:
    """What happened in one control step. Steps are absolute; `plan_age_steps` is -1 without one."""

    step: int
    state: State = State.RUNNING
    reason: str = ""
    plan_age_steps: int = -1
    planner_ran: bool = False
    refiner_ran: bool = False
    clamped: bool = False


class IntentBuffer:
    """Planned intents, aligned by control step."""

    def __init__(self, dims: int) -> None:
        self._intents: Tokens = np.zeros((0, dims), dtype=np.int32)
        self._first = 0
        self.plan_step: int | None = None

    def replace(self, plan_step: int, intents: Tokens, now: int) -> bool:
        """Take a plan for steps plan_step, plan_step + 1, …; what lies before `now` is dropped.

        Returns:
            False, leaving the buffer as it was, for a plan that is not newer than the present one
            or lies wholly in the past.
        """
        stale = self.plan_step is not None and plan_step <= self.plan_step
        past = max(0, now - plan_step)
        if stale or past >= len(intents):
            return False
        self._intents, self._first = intents[past:].copy(), plan_step + past
        self.plan_step = plan_step
        return True

    def left(self, now: int) -> int:
        """Number of steps, from `now` on, that are planned without a gap."""
        if now < self._first:
            return 0
        return max(0, self._first + len(self._intents) - now)

    def take(self, now: int, steps: int) -> Tokens | None:
        """The intents of [now, now + steps), or None where they are not all planned."""
        if self.left(now) < steps:
            return None
        offset = now - self._first
        return self._intents[offset : offset + steps].copy()


class Executor:
    """Runs the two engines step by step.

    Args:
        engines: what runs the graphs.
        config: the policy's configuration.
        mode: `sync` runs the planner when no intents are left; `async` delivers each plan
            `planner_delay_steps` after its observation and asks for the next one when
            `refill_at` chunks are left.
        planner_delay_steps: virtual planner latency, in control steps (async only).
        refill_at: chunks left at which the planner is asked again (async only).
        max_plan_age_steps: a plan older than this is refused; default L.
    """

    def __init__(
        self,
        engines: Engines,
        config: PolicyConfig,
        mode: Literal["sync", "async"] = "sync",
        *,
        planner_delay_steps: int = 0,
        refill_at: int = 1,
        max_plan_age_steps: int | None = None,
    ) -> None:
        self._engines = engines
        self._config = config
        self._mode = mode
        self._delay = planner_delay_steps
        self._refill_steps = refill_at * config.chunk
        self._max_age = config.plan_steps if max_plan_age_steps is None else max_plan_age_steps
        self._lower, self._upper = limits(config.embodiment.actions)
        # Before any command, holding an absolute dimension means its value nearest zero.
        self._last: Floats = np.clip(np.zeros_like(self._lower), self._lower, self._upper)
        self.reset(0, np.zeros(config.instruction_length, dtype=np.int64))

    def reset(self, seed: int, instruction: Instruction) -> None:
        """Start again at step 0: nothing planned, nothing in flight, no fault.

        The last command stays: forgetting where an absolute dimension was sent would move it.

        Args:
            seed: seed of the refiner's noise.
            instruction: tokens int64 [T].
        """
        self._seed, self._instruction = seed, instruction
        self._step, self._chunk = 0, 0
        self._buffer = IntentBuffer(self._config.action_dim)
        self._in_flight: tuple[int, int, Tokens] | None = None
        self._queue: Floats = np.zeros((0, self._config.action_dim), dtype=np.float32)
        self._clamped: npt.NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self._fault = ""

    def step(self, images: Images, state: Floats) -> tuple[Floats, StepInfo]:
        """One control step on the newest observation.

        Args:
            images: uint8 [V, h, w, 3].
            state: physical units, float32 [P].

        Returns:
            The action float32 [D] in physical units, and what happened.
        """
        info = StepInfo(self._step)
        if not self._fault:
            info = self._run(info, images, state)
        if self._fault:
            info = replace(info, state=State.FAULT, reason=self._fault)
        elif len(self._queue) == 0:
            info = replace(info, state=State.HOLD, reason="no valid plan")
        if info.state is State.RUNNING:
            self._last, self._queue = self._queue[0], self._queue[1:]
            info = replace(info, clamped=bool(self._clamped[0]))
            self._clamped = self._clamped[1:]
        else:
            self._last = hold_action(self._config.embodiment.actions, self._last)
        if self._buffer.plan_step is not None:
            info = replace(info, plan_age_steps=self._step - self._buffer.plan_step)
        self._step += 1
        return self._last.copy(), info

    def _run(self, info: StepInfo, images: Images, state: Floats) -> StepInfo:
        if not np.isfinite(state).all():
            self._fault = "state is not finite"
            return info
        if self._mode == "async":
            info = self._plan_ahead(info, images, state)
        if len(self._queue):
            return info
        if self._mode == "sync" and self._buffer.left(self._step) < self._config.chunk:
            intents = self._plan(images, state)
            self._buffer.replace(self._step, intents, self._step)
            info = replace(info, planner_ran=True)
        return info if self._fault else self._refine(info, images, state)

    def _plan(self, images: Images, state: Floats) -> Tokens:
        intents, _ = self._engines.plan(images, self._instruction, state)
        if intents.min() < 0 or intents.max() >= self._config.bins:
            self._fault = "planner output is not an intent"
        return intents

    def _plan_ahead(self, info: StepInfo, images: Images, state: Floats) -> StepInfo:
        if self._in_flight is None and self._buffer.left(self._step) <= self._refill_steps:
            intents = self._plan(images, state)
            self._in_flight = (self._step + self._delay, self._step, intents)
            info = replace(info, planner_ran=True)
        if self._in_flight is not None and self._in_flight[0] <= self._step:
            _, plan_step, intents = self._in_flight
            self._in_flight = None
            if self._step - plan_step <= self._max_age:
                self._buffer.replace(plan_step, intents, self._step)
        return info

    def _refine(self, info: StepInfo, images: Images, state: Floats) -> StepInfo:
        chunk = self._config.chunk
        intents = self._buffer.take(self._step, chunk)
        too_old = (
            self._buffer.plan_step is not None
            and self._step - self._buffer.plan_step > self._max_age
        )
        if intents is None or too_old:
            return info
        noise = chunk_noise(self._seed, self._chunk, (chunk, self._config.action_dim))
        actions = np.asarray(self._engines.refine(images, state, intents, noise))
        self._chunk += 1
        if not np.isfinite(actions).all():
            self._fault = "refiner output is not finite"
            return info
        self._queue = np.clip(actions, self._lower, self._upper)
        self._clamped = (self._queue != actions).any(axis=-1)
        return replace(info, refiner_ran=True)
