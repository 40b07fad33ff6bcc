"""What a robot sees, what was recorded of it, and what drives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from libra_edge.errors import InputError

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


def _check(name: str, array: npt.NDArray[np.generic], dtype: type, *ndims: int) -> None:
    """Refuse an array of another dtype or rank, or a float array that is not finite."""
    if array.dtype != np.dtype(dtype) or array.ndim not in ndims:
        raise InputError(
            "array-mismatch",
            f"{name} is {array.dtype} with {array.ndim} axes; "
            f"{np.dtype(dtype)} with {' or '.join(map(str, ndims))} axes is needed.",
            "Convert the array before handing it over.",
        )
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        where = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise InputError(
            "not-finite",
            f"{name} holds a value that is not finite, first at index {where}.",
            "Remove or repair the recording; NaN and Inf are never filled in.",
        )


@dataclass(frozen=True)
class Observation:
    """One control step's input.

    Attributes:
        images: uint8 [V, height, width, 3], one RGB view per camera in the embodiment's order;
            [bytes] where cameras differ in size, one view after the other.
        state: float32 [P], in the embodiment's units.
        instruction: what the robot is told to do.
    """

    images: UInt8Array
    state: FloatArray
    instruction: str

    def __post_init__(self) -> None:
        _check("images", self.images, np.uint8, 4, 1)
        _check("state", self.state, np.float32, 1)
        if self.images.ndim == 4 and self.images.shape[-1] != 3:
            raise InputError(
                "array-mismatch",
                f"images have shape {self.images.shape}; the last axis must be RGB.",
                "Hand over uint8 [views, height, width, 3].",
            )


@dataclass(frozen=True)
class Episode:
    """One recorded demonstration of T steps.

    Attributes:
        images: uint8 [T, V, height, width, 3]; [T, bytes] where cameras differ in size.
        states: float32 [T, P].
        actions: float32 [T, D], physical units, the action that belongs to the same row's state.
        instruction: what the robot was told to do.
        task: name of the task in its simulator, or the instruction where there is none.
        success: whether the task was done at the end.
        seed: the simulator seed that gives this scene again; 0 for a real robot.
        instructions: what the robot was told at each step, where that changes on the way;
            `instruction` is then the first.
    """

    images: UInt8Array
    states: FloatArray
    actions: FloatArray
    instruction: str
    task: str
    success: bool
    seed: int
    instructions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check("images", self.images, np.uint8, 5, 2)
        _check("states", self.states, np.float32, 2)
        _check("actions", self.actions, np.float32, 2)
        lengths = {len(self.images), len(self.states), len(self.actions)}
        if len(lengths) != 1 or lengths == {0}:
            raise InputError(
                "episode-length",
                f"an episode has {len(self.images)} images, {len(self.states)} states and "
                f"{len(self.actions)} actions.",
                "Record one of each per control step, and at least one step.",
            )
        if self.instructions is not None and (
            len(self.instructions) != len(self) or self.instructions[0] != self.instruction
        ):
            raise InputError(
                "episode-length",
                f"an episode of {len(self)} steps has {len(self.instructions)} instructions, or "
                "begins with another.",
                "Give one instruction per step, or one for the whole episode.",
            )

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def steps_of_first_instruction(self) -> int:
        """Steps before the instruction changes; all of them where it does not."""
        told = self.instructions or ()
        return next((i for i, text in enumerate(told) if text != self.instruction), len(self))

    def observation(self, step: int) -> Observation:
        """What the robot saw at `step`."""
        told = self.instruction if self.instructions is None else self.instructions[step]
        return Observation(self.images[step], self.states[step], told)


class Controller(Protocol):
    """Anything that drives a robot: a policy in PyTorch, engines, or a release."""

    def reset(self, seed: int, instruction: str) -> None:
        """Begin an episode; `seed` fixes the refiner's noise."""
        ...

    def act(self, observation: Observation) -> FloatArray:
        """The action for this control step: float32 [D], physical units."""
        ...
