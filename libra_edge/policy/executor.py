"""The reference execution semantics, in virtual time (NumPy).

Control steps are counted from zero at reset; nothing here reads a clock. Every runtime has to
give these actions for these observations.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Literal

import numpy as np

from libra_edge.policy.execution.chunks import Blend, Chunk, Row, lay
from libra_edge.policy.execution.command import Command
from libra_edge.policy.execution.intent_buffer import IntentBuffer
from libra_edge.policy.execution.noise import chunk_noise
from libra_edge.policy.execution.pace import Now, Pace
from libra_edge.policy.execution.step import Engines as Engines
from libra_edge.policy.execution.step import ExecutedStep as ExecutedStep
from libra_edge.policy.execution.step import Floats as Floats
from libra_edge.policy.execution.step import Images as Images
from libra_edge.policy.execution.step import Instruction as Instruction
from libra_edge.policy.execution.step import State as State
from libra_edge.policy.execution.step import Tokens as Tokens
from libra_edge.policy.time_structure import TimeStructure


class Executor:
    """Runs the two engines step by step.

    Args:
        engines: what runs the graphs.
        config: the policy's configuration.
        mode: `sync` runs the planner when no intents are left; `async` delivers each plan
            `planner_delay_steps` after its observation and asks for the next one when
            `refill_at` chunks are left.
        planner_delay_steps: virtual planner latency, in control steps (async only).
        refiner_delay_steps: virtual refiner latency, in control steps (async only).
        refill_at: chunks left at which the planner is asked again (async only).
        refine_ahead_steps: actions left at which the next chunk is begun (async only); 0 chooses,
            see `libra_edge.policy.execution.pace`.
        max_plan_age_steps: an action of a plan older than this is not sent; default L.
        chunks_per_plan: chunks to use of each plan (async only); default M.
        blend: how chunks take over from each other (async only); default: end to end.
        max_observation_age_s: with an older observation it holds (sync only).
    """

    def __init__(
        self,
        engines: Engines,
        config: TimeStructure,
        mode: Literal["sync", "async"] = "sync",
        *,
        planner_delay_steps: int = 0,
        refiner_delay_steps: int = 0,
        refill_at: int = 1,
        refine_ahead_steps: int = 0,
        max_plan_age_steps: int | None = None,
        chunks_per_plan: int | None = None,
        blend: Blend | None = None,
        max_observation_age_s: float = 0.5,
    ) -> None:
        self._engines = engines
        self._config = config
        self._mode = mode
        self._planner_delay = planner_delay_steps
        self._refiner_delay = refiner_delay_steps
        self._blend = blend or Blend()
        longest = config.plan_steps if config.plans else 2 * (config.chunk + config.rows)
        self._max_age = longest if max_plan_age_steps is None else max_plan_age_steps
        self._plan_steps = (chunks_per_plan or config.chunks_per_plan) * config.chunk
        # Of what is predicted, the steps that are executed, and those that are blended.
        overlap = 0 if config.plans or mode == "sync" else self._blend.steps
        self._rows = min(config.rows, config.chunk + overlap)
        self._max_observation_age_ns = round(max_observation_age_s * 1e9)
        self.pace = Pace(
            config.chunk,
            config.plan_steps,
            plans=config.plans,
            ahead=refine_ahead_steps,
            refill_at=refill_at,
            shared=self._blend.steps,
            max_plan_age=self._max_age,
        )
        self._command = Command(config.embodiment.actions, config.embodiment.state)
        self.reset(0, np.zeros(config.instruction_length, dtype=np.int64))

    def reset(self, seed: int, instruction: Instruction) -> None:
        """Start again at step 0: nothing planned, nothing in flight, no fault.

        The last command stays: forgetting where an absolute dimension was sent would move it.

        Args:
            seed: seed of the refiner's noise.
            instruction: tokens int64 [T].
        """
        # Public: another instruction may be set between steps; the next plan follows it.
        self._seed, self.instruction = seed, instruction
        self._step, self._chunk = 0, 0
        self._buffer = IntentBuffer(len(self._config.embodiment.actions))
        self._planning: tuple[int, int, Tokens] | None = None
        self._refining: Chunk | None = None
        self.pace.reset(idle=True)
        self._asked: int | None = None
        self._queue: dict[int, Row] = {}
        self._fault = ""
        self._seen: tuple[int, Images, Floats] | None = None
        self._gap: int | None = None
        self._past: deque[tuple[Images, Floats]] = deque(maxlen=self._config.observation_steps)

    def step(self, images: Images | None, state: Floats | None) -> tuple[Floats, ExecutedStep]:
        """One control step on the newest observation.

        Args:
            images: uint8 [V, h, w, 3], or [bytes] where sizes differ; None, like `state`, where
                nothing new was seen (sync only).
            state: physical units, float32 [P].

        Returns:
            The action float32 [D] in physical units, and what happened.
        """
        info = ExecutedStep(self._step)
        if images is not None and state is not None:
            self._gap = None if self._seen is None else self._step - self._seen[0]
            self._seen = (self._step, images, state)
        if self._seen is not None:
            self._look(*self._seen[1:])
        waits = self._waits()
        if not self._fault and not waits and self._seen is not None:
            info = self._run(info, *self._seen[1:])
        action, info = self._act(info, waits)
        if self._buffer.plan_step is not None and info.plan_age_steps < 0:
            info = replace(info, plan_age_steps=self._step - self._buffer.plan_step)
        self._step += 1
        return action, info

    def _look(self, images: Images, state: Floats) -> None:
        """One observation of each step, at the start the first for all before it."""
        for _ in range(1 if self._past else self._config.observation_steps):
            self._past.append((images, state))

    def _waits(self) -> str:
        """Why the newest observation is none to act on, or nothing."""
        if self._seen is None:
            return "nothing observed yet"
        steps = self._step - self._seen[0]
        age_ns = int(steps * 1e9 / self._config.embodiment.control_hz)
        return "observation is too old" if age_ns > self._max_observation_age_ns else ""

    def _act(self, info: ExecutedStep, waits: str) -> tuple[Floats, ExecutedStep]:
        row = self._queue.pop(self._step, None)
        if row is not None and self._step - row.plan_step > self._max_age:
            row = None
        if row is not None and not self._fault and not waits:
            state = None if self._seen is None else self._seen[2]
            limited = self._command.send(row.action, state)
            info = replace(
                info, clamped=bool(limited.clamped.any()), slowed=bool(limited.slowed.any())
            )
            if limited.action is not None:
                age, seen = self._step - row.plan_step, self._step - row.seen + 1
                return limited.action.copy(), replace(info, plan_age_steps=age, seen_steps=seen)
            self._fault = "action is out of limits"
        if self._fault:
            info = replace(info, state=State.FAULT, reason=self._fault)
        else:
            planned = bool(self._queue) or self._buffer.left(self._step) >= self._config.chunk
            planned = planned or not self._config.plans
            late = planned or self._refining is not None
            reason = "action queue ran dry" if late else "no valid plan"
            info = replace(info, state=State.HOLD, reason=waits or reason)
        return self._command.hold().copy(), info

    def _run(self, info: ExecutedStep, images: Images, state: Floats) -> ExecutedStep:
        if not np.isfinite(state).all():
            self._fault = "state is not finite"
            return info
        if self._mode == "sync":
            return self._run_in_step(info, images, state)
        # Once more where the planner makes way for the refiner.
        for _ in range(1 + self.pace.ahead.automatic):
            if self._config.plans and not self._fault:
                info = self._plan_ahead(info, images, state)
            self._deliver_chunk()
            while not self._fault and self._begin_chunk(images, state):
                info = replace(info, refiner_ran=True)
                self._deliver_chunk()
        return info

    def _run_in_step(self, info: ExecutedStep, images: Images, state: Floats) -> ExecutedStep:
        if self._queue:
            return info
        if self._config.plans and self._buffer.left(self._step) < self._config.chunk:
            intents = self._plan(images, state)
            self._buffer.replace(self._step, intents, self._step)
            info = replace(info, planner_ran=True)
        if not self._fault and self._begin_chunk(images, state):
            info = replace(info, refiner_ran=True)
            self._deliver_chunk()
        return info

    def _plan(self, images: Images, state: Floats) -> Tokens:
        intents, _ = self._engines.plan(images, self.instruction, state)
        if intents.min() < 0 or intents.max() >= self._config.bins:
            self._fault = "planner output is not an intent"
        return intents

    def _plan_ahead(self, info: ExecutedStep, images: Images, state: Floats) -> ExecutedStep:
        self._deliver_plan()
        may_ask = self._planning is None and self._asked != self._step
        if may_ask and self.pace.plan_due(self._now, self._buffer, self._plan_steps):
            self._asked = self._step
            self.pace.plan_begins(self._step)
            intents = self._plan(images, state)[: self._plan_steps]
            self._planning = (self._step + self._planner_delay, self._step, intents)
            info = replace(info, planner_ran=True)
            self._deliver_plan()
        return info

    def _deliver_plan(self) -> None:
        if self._planning is None or self._planning[0] > self._step:
            return
        _, plan_step, intents = self._planning
        self._planning = None
        self.pace.plan_ends(self._step)
        if self._step - plan_step <= self._max_age:
            self._buffer.replace(plan_step, intents, self._step)

    @property
    def _now(self) -> Now:
        seen = self._step if self._seen is None else self._seen[0]
        end = max(self._queue, default=self._step - 1) + 1
        return Now(self._step, end, seen, self._gap)

    def _begin_chunk(self, images: Images, state: Floats) -> bool:
        """Run the refiner where the next chunk is due and planned."""
        if self._refining is not None:
            return False
        now = self._now
        first = self.pace.next_chunk(now, self._buffer)
        if first is None:
            return False
        if self._mode == "async" and self.pace.waits_for_observation(now):
            return False
        plan_step, intents = self._part(now, first)
        begun = self.pace.chunk_begins(now, first, self._buffer, self._plan_steps)
        noise = chunk_noise(self._seed, self._chunk, self._config.noise_shape)
        if not self._config.plans:
            images, state = self._looked_back()
        told = () if self._config.plans else (self.instruction,)
        actions = np.asarray(self._engines.refine(images, state, intents, noise, *told))
        delay = self._refiner_delay if self._mode == "async" else 0
        rows = actions[: self._rows]
        self._refining = Chunk(
            self._step, self._step + delay, first, plan_step, rows, begun, now.seen
        )
        return True

    def _part(self, now: Now, first: int) -> tuple[int, Tokens]:
        """The step of the plan, and its intents from `first` on."""
        plan_step, intents = self._buffer.plan_step, self._buffer.take(first, self._config.chunk)
        if plan_step is None or intents is None:
            return now.seen, np.empty((0, len(self._config.embodiment.actions)), np.int32)
        return plan_step, intents

    def _looked_back(self) -> tuple[Images, Floats]:
        """What the engine looks at: the last S steps, the newest last."""
        if self._config.observation_steps == 1:
            return self._past[-1]
        images, states = zip(*self._past, strict=True)
        return np.stack(images), np.stack(states)

    def _deliver_chunk(self) -> None:
        chunk = self._refining
        if chunk is None or chunk.ready > self._step:
            return
        self._refining = None
        self.pace.chunk_ends(self._step, chunk.began, chunk.begun)
        self._chunk += 1
        if not np.isfinite(chunk.actions).all():
            self._fault = "refiner output is not finite"
            return
        lay(self._queue, chunk, self._step, self._blend)
