"""What the C ABI has to do in sync mode, call by call: the reference executor with every field.

`libra_edge.h` says it in words, `libra_edge.policy.executor` for whole steps; a test holds this
against the executor. Async mode is in `async_reference`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from libra_edge.binding import abi
from libra_edge.policy.execution.command import Command, Limited
from libra_edge.policy.execution.noise import chunk_noise
from libra_edge.policy.executor import State
from libra_edge.verification.native.probe import (
    EngineFailure,
    Floats,
    Images,
    Numbers,
    Probe,
    Tokens,
)

# What a call gave, by name of the field; what `libra_edge.h` leaves open is not in it.
Outcome = dict[str, Any]
NO_OBSERVATION, NO_INSTRUCTION, STATE_NOT_FINITE, PLANNER_NOT_FINITE = 1, 2, 3, 4
REFINER_NOT_FINITE, PLANNER_FAILED, REFINER_FAILED, INTENT_OUT_OF_RANGE = 5, 6, 7, 8
OBSERVATION_TOO_OLD, ENGINE_TIMEOUT, NO_PLAN, UNDERRUN, OUT_OF_LIMITS = 9, 10, 11, 12, 13
MASK_BITS = 64
DEFAULT_AGE_NS = 500_000_000


@dataclass(frozen=True)
class Seen:
    """An observation, the step in which it came, and its number, from 1."""

    images: Images
    state: Floats
    step: int
    number: int = 0


class CheckedEngines:
    """The probe engines, and what is wrong with what they give."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.newest: Tokens = np.zeros((probe.contract.plan_steps, probe.contract.dims), np.int32)

    def plan(self, seen: Seen, words: Numbers) -> int:
        """Run the planner; `newest` holds its intents. Returns the fault, or 0."""
        try:
            self.newest, margin = self.probe.plan(seen.images, words, seen.state)
        except EngineFailure:
            return PLANNER_FAILED
        if not np.isfinite(margin).all():
            return PLANNER_NOT_FINITE
        known = (self.newest >= 0) & (self.newest < self.probe.contract.bins)
        return 0 if known.all() else INTENT_OUT_OF_RANGE

    def refine(self, seen: Seen, intent: Tokens, noise: Floats) -> tuple[int, Floats]:
        """Run the refiner: the fault, or 0, and the actions [H, D]."""
        try:
            actions = self.probe.refine(seen.images, seen.state, intent, noise)
        except EngineFailure:
            return REFINER_FAILED, noise
        return 0 if np.isfinite(actions).all() else REFINER_NOT_FINITE, actions


class Limits:
    """The last step before the robot, and the flags and masks that tell of it."""

    def __init__(self, probe: Probe) -> None:
        robot = probe.contract.embodiment
        self.command = Command(robot.actions, robot.state)
        self._delta = np.array([d.kind == "delta" for d in robot.actions])
        self._sent = False

    def send(self, wanted: Floats, seen: Seen | None, masks: Outcome) -> Floats | None:
        """The action [D], or None where that is a fault; `masks` receives flags and masks."""
        limited = self.command.send(wanted, None if seen is None else seen.state)
        masks["flags"] |= abi.CLAMPED * bool(limited.clamped.any())
        masks["flags"] |= abi.SLOWED * bool(limited.slowed.any())
        masks |= self._masks(limited)
        self._sent = self._sent or limited.action is not None
        return limited.action

    @staticmethod
    def _masks(limited: Limited) -> Outcome:
        def mask(flags: Any) -> int:
            return sum(1 << d for d, flag in enumerate(flags[:MASK_BITS]) if flag)

        return {
            "clamped_mask": mask(limited.clamped),
            "clamped_count": int(limited.clamped.sum()),
            "slowed_mask": mask(limited.slowed),
        }

    def hold(self) -> tuple[Floats, int]:
        """The hold action [D], and whether there is nothing to keep."""
        nothing = not self._sent and not self._delta.all()
        return self.command.hold(), abi.NO_COMMAND * nothing


def no_masks() -> Outcome:
    """Flags and masks of a step that has not sent anything."""
    return {"flags": 0, "clamped_mask": 0, "clamped_count": 0, "slowed_mask": 0}


class SyncReference:
    """Sync mode. Every method gives what the C function of that name gives.

    Args:
        probe: the engines.
        seed: of the noise until the first reset.
        max_observation_age_ns: 0 is the default.
        tokens: those that there are.
    """

    def __init__(
        self, probe: Probe, seed: int, max_observation_age_ns: int, tokens: frozenset[int]
    ) -> None:
        self.contract, self._tokens = probe.contract, tokens
        self.engines, self.limits = CheckedEngines(probe), Limits(probe)
        self._max_age_ns = max_observation_age_ns or DEFAULT_AGE_NS
        self.words: Numbers | None = None
        self.reset(seed)

    def reset(self, seed: int) -> Outcome:
        """Step 0 again; instruction and last command stay."""
        self.seed, self.fault = seed, 0
        self._step, self._made, self._chunk_step, self._plan_step = 0, 0, 0, -1
        self._seen: Seen | None = None
        self._stamp = 0
        return {"status": abi.OK}

    def set_instruction(self, tokens: Numbers) -> Outcome:
        """Words for the next plan."""
        if not self._tokens.issuperset(tokens.tolist()):
            return {"status": abi.INVALID_ARGUMENT}
        self.words = tokens.copy()
        return {"status": abi.OK}

    def observe(self, images: Images, state: Floats, stamp: int) -> Outcome:
        """The newest observation; a state that is not finite is a fault."""
        if not np.isfinite(state).all():
            self.fault = self.fault or STATE_NOT_FINITE
            return {"status": abi.NOT_FINITE}
        self._seen, self._stamp = Seen(images.copy(), state.copy(), self._step), stamp
        return {"status": abi.OK}

    def step(self) -> Outcome:
        """One control step."""
        info, waits, before = no_masks() | {"planned": False, "refined": False}, 0, self.fault
        waits = self._waits()
        action: Floats | None = None
        if not self.fault and not waits and self._seen is not None and self.words is not None:
            if not (self._made and self._step < self._chunk_step + self.contract.chunk):
                self._make_chunk(self._seen, self.words, info)
            if not self.fault:
                action = self.limits.send(
                    self._actions[self._step - self._chunk_step], self._seen, info
                )
                self.fault = 0 if action is not None else OUT_OF_LIMITS
        if action is None:
            action, flag = self.limits.hold()
            info["flags"] |= flag
        else:
            info["chunk"] = self._made - 1
        state = State.FAULT if self.fault else State.HOLD if waits else State.RUNNING
        info |= {
            "status": abi.OK,
            "action": action,
            "state": int(state),
            "reason": self.fault or waits,
            "step": self._step,
            "plan_step": self._plan_step,
            "plan_age_steps": self._step - self._plan_step if self._plan_step >= 0 else -1,
            "observation_timestamp_ns": self._stamp,
            "observation_age_ns": self._age_ns(),
            "met a fault": bool(self.fault and not before),
        }
        del info["slowed_mask"]
        # Whether a call that failed has run is open.
        if self.fault in (PLANNER_FAILED, REFINER_FAILED):
            del info["planned"], info["refined"]
        self._step += 1
        return info

    def _age_ns(self) -> int:
        if self._seen is None:
            return 0
        return int((self._step - self._seen.step) * 1e9 / self.contract.embodiment.control_hz)

    def _waits(self) -> int:
        if self._seen is None:
            return NO_OBSERVATION
        if self.words is None:
            return NO_INSTRUCTION
        return OBSERVATION_TOO_OLD if self._age_ns() > self._max_age_ns else 0

    def _make_chunk(self, seen: Seen, words: Numbers, info: Outcome) -> None:
        chunk, total = self.contract.chunk, self.contract.plan_steps
        if self._plan_step < 0 or self._step + chunk > self._plan_step + total:
            info["flags"] |= abi.PLANNER_RAN
            info["planned"] = True
            self.fault = self.engines.plan(seen, words)
            if self.fault:
                return
            self._plan_step = self._step
        used = self._step - self._plan_step
        noise = chunk_noise(self.seed, self._made, (chunk, self.contract.dims))
        info["flags"] |= abi.REFINER_RAN
        info["refined"] = True
        intent = self.engines.newest[used : used + chunk]
        self.fault, self._actions = self.engines.refine(seen, intent, noise)
        if not self.fault:
            self._chunk_step = self._step
            self._made += 1

    def last_plan(self) -> Outcome:
        """The intents of the newest planner call since the reset."""
        if self._plan_step < 0:
            return {"status": abi.INVALID_ARGUMENT}
        return {"status": abi.OK, "intent": self.engines.newest}

    def fault_text(self) -> Outcome:
        """Whether there is a sentence on the fault."""
        return {"status": abi.OK, "a sentence": bool(self.fault)}
