"""A control loop in async mode whose engine calls take the number of ticks that a script says."""

from __future__ import annotations

import numpy as np

from libra_edge.binding.abi import (
    PLAN_BEGIN,
    PLAN_CLAIM,
    PLAN_END,
    PLAN_RUN,
    REFINE_BEGIN,
    REFINE_CLAIM,
    REFINE_END,
    REFINE_RUN,
)
from libra_edge.verification.native.async_parts import Options
from libra_edge.verification.native.pair import Pair
from libra_edge.verification.native.probe import Floats, Images
from libra_edge.verification.native.reference import Outcome
from libra_edge.verification.native.scripts.observations import Observer

# Some morning of 2033, far from zero and with bits in both halves.
BEGIN_NS = 2 * 10**18 + 123_456_789
PIECES = (
    *(PLAN_BEGIN, PLAN_END, REFINE_BEGIN, REFINE_END),
    *(PLAN_CLAIM, PLAN_RUN, REFINE_CLAIM, REFINE_RUN),
)


class Loop:
    """Steps a pair in virtual time.

    Args:
        pair: in sync mode.
        see: where observations come from.
        planner_ticks, refiner_ticks: how long a call takes.
    """

    def __init__(
        self, pair: Pair, see: Observer, planner_ticks: int = 0, refiner_ticks: int = 0
    ) -> None:
        self.pair, self.see, self.now_ns = pair, see, BEGIN_NS
        self.period_ns = int(1e9 / pair.contract.embodiment.control_hz)
        self.delays = (planner_ticks, refiner_ticks)
        self._ticks = 0
        self._ready: list[int | None] = [None, None]

    def start(self, options: Options | None = None, seed: int = 5) -> None:
        """Async mode from the beginning, with an instruction."""
        self.pair.stop()
        self.pair.reset(seed)
        self.pair.set_instruction(self.pair.subject.words[0])
        self.pair.start(options)
        self._ready = [None, None]

    def forget(self) -> None:
        """Finish the calls under way: after a reset their results are for nothing."""
        for end in (PLAN_END, REFINE_END):
            self.pair.work(end)
        self._ready = [None, None]

    def observe(self, seen: tuple[Images, Floats] | None = None, age_ns: int = 0) -> None:
        """A new observation, calm unless another is given, taken `age_ns` ago."""
        self.pair.observe(*(seen or self.see.calm()), self.now_ns - age_ns)

    def engines(self) -> None:
        """In the order of the reference executor: planner, then refiner as often as it is due."""
        for engine, (begin, end) in enumerate(((PLAN_BEGIN, PLAN_END), (REFINE_BEGIN, REFINE_END))):
            self._end(engine, end)
            while self._ready[engine] is None and self.pair.work(begin):
                self._ready[engine] = self._ticks + self.delays[engine]
                self._end(engine, end)
                if begin == PLAN_BEGIN:
                    break

    def _end(self, engine: int, end: int) -> None:
        ready = self._ready[engine]
        if ready is not None and ready <= self._ticks:
            self.pair.work(end)
            self._ready[engine] = None

    def tick(self) -> Outcome:
        """One tick; then a period passes."""
        outcome = self.pair.tick(self.now_ns)
        self.now_ns += self.period_ns
        self._ticks += 1
        return outcome

    def once(self, seen: tuple[Images, Floats] | None = None) -> Outcome:
        """A whole period."""
        self.observe(seen)
        self.engines()
        return self.tick()

    def run(self, ticks: int, *, loud: bool = False) -> None:
        """Several periods."""
        for _ in range(ticks):
            self.once(self.see.loud() if loud else None)


def some_options(rng: np.random.Generator, pair: Pair) -> Options:
    """Any options that `le_start` takes."""
    chunk, chunks = pair.contract.chunk, pair.contract.chunks_per_plan
    total = pair.contract.plan_steps
    blend = int(rng.integers(0, 3)) if chunk > 1 else 0
    shared = int(rng.integers(1, chunk)) if blend else 0
    return Options(
        chunks_per_plan=int(rng.integers(0, chunks + 1)),
        refill_at=int(rng.integers(0, chunks + 1)),
        refine_ahead_steps=int(rng.integers(0, total + 1)),
        max_plan_age_steps=int(rng.integers(chunk, total + chunk + 1)),
        blend=blend,
        blend_steps=shared,
        frozen_steps=int(rng.integers(0, shared + 1)) if blend == 2 else 0,
    )
