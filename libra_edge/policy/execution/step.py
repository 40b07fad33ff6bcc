"""What execution asks of engines, and what it tells of each control step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Images = npt.NDArray[np.uint8]
Instruction = npt.NDArray[np.int64]


class Engines(Protocol):
    """Anything that runs the graphs of a policy: PyTorch, ONNX Runtime, the C ABI.

    Without a planner `plan` gives [0, D] twice, and `refine` takes the instruction; images, state
    and noise have the engine's own shapes, noise [0] where there is none.
    """

    def plan(self, images: Images, instruction: Instruction, state: Floats) -> tuple[Tokens, Any]:
        """Images uint8 [V, h, w, 3], int64 [T], float32 [P] → intent int32 [L, D], margin."""
        ...

    def refine(
        self,
        images: Images,
        state: Floats,
        intent: Tokens,
        noise: Floats,
        instruction: Instruction | None = None,
    ) -> Floats:
        """Images, state, intent int32 [H, D], noise float32 [H, D] → actions float32 [H, D]."""
        ...


class State(IntEnum):
    """What the policy is doing; the numbers are those of the C ABI."""

    RUNNING = 0
    HOLD = 1
    FAULT = 2


@dataclass(frozen=True)
class ExecutedStep:
    """What happened in one control step. Steps are absolute; `plan_age_steps` is -1 without one.

    `seen_steps`: control steps since the observation that the action's chunk was made from, counted
    with its own; 0 without one.
    """

    step: int
    state: State = State.RUNNING
    reason: str = ""
    plan_age_steps: int = -1
    seen_steps: int = 0
    planner_ran: bool = False
    refiner_ran: bool = False
    clamped: bool = False
    slowed: bool = False
