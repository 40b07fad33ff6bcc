"""Observations that command the probe engines."""

from __future__ import annotations

import numpy as np

from libra_edge.verification.native import probe
from libra_edge.verification.native.pair import Subject
from libra_edge.verification.native.probe import Floats, Images

# Drawn once: drawing millions of pixels for every step would take longer than the step.
_PICTURES = 8
# Of the second byte: actions that stay inside their limits, and that leave them.
_CALM, _LOUD = (16, 48), (60, 255)


class Observer:
    """Makes observations, seeded: images uint8 [V, h, w, 3] and states float32 [P]."""

    def __init__(self, subject: Subject, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        shape = subject.contract.image_shape
        self._pictures = [
            self._rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(_PICTURES)
        ]
        self._state_dim = len(subject.contract.embodiment.state)

    def calm(self) -> tuple[Images, Floats]:
        """Nothing special."""
        return self._make(probe.FINE, self._between(_CALM), probe.QUIET)

    def loud(self) -> tuple[Images, Floats]:
        """Actions out of their limits, far from those before."""
        return self._make(probe.FINE, self._between(_LOUD), self._between((0, 40)))

    def noisy(self) -> tuple[Images, Floats]:
        """Actions of noise alone."""
        return self._make(probe.FINE, 0, 20)

    def coded(self, code: int, place: int) -> tuple[Images, Floats]:
        """A harm, in one place."""
        return self._make(code, self._between(_CALM), place)

    def any(self) -> tuple[Images, Floats]:
        """Any of them; harms seldom."""
        chance = self._rng.random()
        if chance < 0.03:
            return self.coded(self._between((1, probe.CODES)), self._between((0, 256)))
        return self.loud() if chance < 0.3 else self.calm()

    def _between(self, bounds: tuple[int, int]) -> int:
        return int(self._rng.integers(*bounds))

    def _make(self, *command: int) -> tuple[Images, Floats]:
        images = self._pictures[int(self._rng.integers(_PICTURES))].copy()
        images.reshape(-1)[: len(command)] = command
        size = 10.0 ** self._rng.uniform(-2, 3)
        return images, (size * self._rng.standard_normal(self._state_dim)).astype(np.float32)
