"""How long single engine calls take here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np

from libra_edge.models import Strict
from libra_edge.parity.samples import Sample
from libra_edge.policy.executor import Engines

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


def measure_latencies(engines: Engines, samples: Sequence[Sample]) -> tuple[Latency, ...]:
    """Time planner and refiner in turn, after a few calls to warm up."""
    planner: list[float] = []
    refiner: list[float] = []
    for i in range(_CALLS + _WARMING):
        sample = samples[i % len(samples)]
        begin = time.perf_counter()
        intent, _ = engines.plan(sample.images, sample.instruction, sample.state)
        middle = time.perf_counter()
        engines.refine(sample.images, sample.state, intent[: len(sample.noise)], sample.noise)
        end = time.perf_counter()
        planner.append(round((middle - begin) * 1e3, 4))
        refiner.append(round((end - middle) * 1e3, 4))
    return (
        Latency(name="planner", calls_ms=tuple(planner[_WARMING:])),
        Latency(name="refiner", calls_ms=tuple(refiner[_WARMING:])),
    )
