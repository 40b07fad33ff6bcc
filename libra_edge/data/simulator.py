"""What a simulator offers to collection and to the closed loop."""

from __future__ import annotations

import importlib
from typing import Literal, Protocol, cast

from libra_edge.data.types import FloatArray, Observation
from libra_edge.errors import InputError, did_you_mean
from libra_edge.policy.config import Embodiment

Split = Literal["train", "eval"]

# One line per simulator: its name and the class that implements `Simulator`.
SIMULATORS = {"metaworld": "libra_edge.data.metaworld:MetaWorld"}


class Simulator(Protocol):
    """A simulated robot with named tasks.

    `reset` and the following `step`s depend on their arguments alone, not on earlier episodes, so
    that episodes can be shared out among processes in any order.
    """

    max_steps: int

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        ...

    def embodiment(self) -> Embodiment:
        """The robot: cameras, state, actions, control rate."""
        ...

    def instructions(self, task: str) -> tuple[str, ...]:
        """The sentences that ask for `task`."""
        ...

    def reset(self, task: str, seed: int, instruction: str | None = None) -> Observation:
        """Set up variation `seed` of `task`; it also picks the instruction unless one is given."""
        ...

    def step(self, action: FloatArray) -> tuple[Observation, bool]:
        """Apply float32 [D] for one control step; returns what is seen next, and success."""
        ...

    def expert_action(self) -> FloatArray:
        """What the scripted expert would do now: float32 [D], within the limits."""
        ...

    def close(self) -> None:
        """Free the renderers."""
        ...


def open_simulator(name: str, split: Split) -> Simulator:
    """The simulator `name`, on training or on held-out variations."""
    if name not in SIMULATORS:
        raise InputError(
            "simulator-unknown", f"no simulator is called {name!r}.", did_you_mean(name, SIMULATORS)
        )
    module, class_name = SIMULATORS[name].split(":")
    return cast(Simulator, getattr(importlib.import_module(module), class_name)(split))
