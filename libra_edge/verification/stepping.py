"""Does the runtime step as the reference does? Whole episodes, not single engine calls.

Engines may each be right and still be used wrongly: other noise, intents of another step, a plan
of another length. So the C runtime steps beside the reference executor, both over the same engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from libra_edge.parity.gates import Check
from libra_edge.parity.metrics import action_error
from libra_edge.parity.samples import Sample
from libra_edge.policy.executor import Engines, Executor, Floats, Images, Instruction, State
from libra_edge.policy.time_structure import TimeStructure

STAGE = "C ABI steps vs reference executor"
# The same engine runs on both sides: what is left is rounding.
LARGEST_ERROR = 1e-4
EPISODE_SEEDS = (3, 2**63 + 1)
PLANS_PER_EPISODE = 3


class StepRecord(Protocol):
    """What a step reports, of executor and runtime alike."""

    @property
    def state(self) -> State:
        """RUNNING, HOLD or FAULT."""
        ...

    @property
    def planner_ran(self) -> bool:
        """Whether this step made a plan."""
        ...

    @property
    def refiner_ran(self) -> bool:
        """Whether this step made a chunk."""
        ...


class Stepper(Protocol):
    """The part of `libra_edge.runtime.Policy` that steps."""

    def restart(self, seed: int) -> None:
        """Start an episode."""
        ...

    def set_instruction(self, tokens: Instruction) -> None:
        """Say what to do."""
        ...

    def observe(self, images: Images, state: Floats) -> None:
        """Hand over an observation."""
        ...

    def step(self) -> tuple[Floats, StepRecord]:
        """One control step."""
        ...


def compare_steps(
    config: TimeStructure, engines: Engines, runtime: Stepper, samples: Sequence[Sample]
) -> list[Check]:
    """Step both through episodes of a few plans on the samples' observations, sync mode.

    Args:
        config: the checkpoint's own, not what the release says of itself.
        engines: the release's engines, for the reference executor.
        runtime: the release in the C runtime.
        samples: observations, taken in turn.
    """
    executor = Executor(engines, config)
    alike, wanted, found = [], [], []
    for episode, seed in enumerate(EPISODE_SEEDS):
        words = samples[episode % len(samples)].instruction
        executor.reset(seed, words)
        runtime.restart(seed)
        if config.instruction_length:
            runtime.set_instruction(words)
        for i in range(PLANS_PER_EPISODE * config.plan_steps):
            sample = samples[(episode + i) % len(samples)]
            images, state = sample.images, sample.state
            if config.observation_steps > 1:
                images, state = images[-1], state[-1]
            action, info = executor.step(images, state)
            runtime.observe(images, state)
            ran_action, ran = runtime.step()
            wanted.append(action)
            found.append(ran_action)
            alike.append(_what_happened(info) == _what_happened(ran))
    share = float(np.mean(alike))
    error = action_error(np.stack(wanted), np.stack(found), config.embodiment.actions)
    note = f"p50 {error.p50:.1e}, p99 {error.p99:.1e}"
    return [
        _check("planner, refiner and state alike", share, 1.0, len(alike), share == 1.0),
        _check(
            "action error / range",
            error.max,
            LARGEST_ERROR,
            len(alike),
            error.max <= LARGEST_ERROR,
            note,
        ),
    ]


def _what_happened(info: StepRecord) -> tuple[int, bool, bool]:
    return int(info.state), info.planner_ran, info.refiner_ran


def _check(
    metric: str, value: float, threshold: float, count: int, passed: bool, note: str = ""
) -> Check:
    return Check(STAGE, metric, value, threshold, count, "pass" if passed else "fail", note)
