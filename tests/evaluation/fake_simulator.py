"""A one-dimensional robot that must walk to the goal its instruction names; no renderer needed."""

from __future__ import annotations

import numpy as np

from libra_edge.data.types import Observation
from libra_edge.errors import InputError, did_you_mean
from libra_edge.policy.config import ActionDim, Embodiment, StateDim

SENTENCES = {"left": ("go left", "walk left"), "right": ("go right",)}


class LineWorld:
    max_steps = 12

    def __init__(self) -> None:
        self._position = np.zeros(1, np.float32)
        self._goal = 0.0
        self._instruction = ""
        self.closed = False

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(SENTENCES)

    def embodiment(self) -> Embodiment:
        return Embodiment(
            name="line",
            control_hz=10,
            cameras=("front",),
            image_height=4,
            image_width=4,
            state=(StateDim(name="x", unit="m"),),
            actions=(ActionDim(name="x", unit="m", kind="delta", lower=-1, upper=1),),
        )

    def instructions(self, task: str) -> tuple[str, ...]:
        if task not in SENTENCES:
            raise InputError("task-unknown", f"no task {task!r}.", did_you_mean(task, SENTENCES))
        return SENTENCES[task]

    def reset(self, task: str, seed: int, instruction: str | None = None) -> Observation:
        rng = np.random.default_rng(seed)
        self._position[:] = rng.uniform(-1, 1)
        self._goal = 5.0 if task == "right" else -5.0
        self._instruction = instruction or SENTENCES[task][seed % len(SENTENCES[task])]
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[Observation, bool]:
        self._position = self._position + np.clip(action, -1, 1)
        return self._observe(), bool(abs(self._position[0] - self._goal) < 1)

    def expert_action(self) -> np.ndarray:
        return np.array([np.sign(self._goal)], np.float32)

    def close(self) -> None:
        self.closed = True

    def _observe(self) -> Observation:
        images = np.zeros((1, 4, 4, 3), np.uint8)
        return Observation(images, self._position.copy(), self._instruction)


class Obedient:
    """Goes where it is told, with noise from its seed."""

    speed = 1.0

    def reset(self, seed: int, instruction: str) -> None:
        self._direction = 1.0 if "right" in instruction else -1.0
        self._rng = np.random.default_rng(seed)

    def act(self, observation: Observation) -> np.ndarray:
        noise = self._rng.normal(0, 0.1)
        return np.array([self._direction * self.speed + noise], np.float32)


class Sluggish(Obedient):
    """Too slow for the scenes that start far from the goal."""

    speed = 0.42


class Broken(Obedient):
    def act(self, observation: Observation) -> np.ndarray:
        raise InputError("broken-policy", "it broke.", "Mend it.")


class Closing(Obedient):
    """Has to be closed, and refuses to work afterwards, like a policy in the C runtime."""

    def __init__(self) -> None:
        super().__init__()
        self._open = True

    def __enter__(self) -> Closing:
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False

    def act(self, observation: Observation) -> np.ndarray:
        assert self._open, "closed while in use"
        return super().act(observation)
