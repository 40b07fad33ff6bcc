"""How long single engine calls take here."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from libra_edge.models import Strict
from libra_edge.parity.samples import Sample
from libra_edge.policy.executor import Engines, Floats, Images, Instruction, Tokens

_CALLS = 60
_WARMING = 3


class Latency(Strict):
    """Wall time of single calls on one thread, in the order they were made."""

    name: Literal["planner", "refiner"]
    calls_ms: tuple[float, ...]

    @property
    def p50_ms(self) -> float:
        """Median."""
        return statistics.median(self.calls_ms)

    @property
    def p99_ms(self) -> float:
        """99th percentile."""
        return float(np.percentile(self.calls_ms, 99))


class Timed(Engines, Protocol):
    """Engines that time their own calls, without the way to them and back."""

    def time_calls(
        self, images: Images, instruction: Instruction, state: Floats, intent: Tokens, noise: Floats
    ) -> tuple[float, float]:
        """Milliseconds of one planner and one refiner call."""
        ...


def measure_latencies(engines: Timed, samples: Sequence[Sample]) -> tuple[Latency, ...]:
    """Time planner, where there is one, and refiner in turn, after a few calls to warm up."""
    planner: list[float] = []
    refiner: list[float] = []
    intents: list[Tokens] = []
    for i in range(_CALLS + _WARMING):
        sample = samples[i % len(samples)]
        words, noise = sample.instruction, sample.noise
        if i < len(samples):
            intents.append(engines.plan(sample.images, words, sample.state)[0][: len(noise)])
        intent = intents[i % len(samples)]
        times = engines.time_calls(sample.images, words, sample.state, intent, noise)
        planner.append(round(times[0], 4))
        refiner.append(round(times[1], 4))
    fast = Latency(name="refiner", calls_ms=tuple(refiner[_WARMING:]))
    if not intents[0].size:
        return (fast,)
    return Latency(name="planner", calls_ms=tuple(planner[_WARMING:])), fast
