"""Calls in turns, and what their times are worth."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Feeds = Mapping[str, Any]
MOST_ROUNDS, WARM_UP, TAIL_CALLS, MOST_IN_A_TURN = 1500, 5, 1000, 8
# The planner has to be running still when the refiner ends. Plans queued one behind the other take
# less than one called alone, copies and waiting left out.
_COVER, _MOST_PLANS = 4.0, 400


class Call(Protocol):
    """An engine: arrays of the host in, arrays of the host out, done when it returns."""

    def __call__(self, feeds: Feeds) -> dict[str, Any]:
        """Run once."""
        ...


class Load(Protocol):
    """Work on a stream of its own that goes on while something else is timed."""

    def begin(self, count: int) -> None:
        """Queue `count` runs and return."""
        ...

    def busy(self) -> bool:
        """Whether any is not done."""
        ...

    def drain(self) -> None:
        """Wait for all."""
        ...


@dataclass(frozen=True)
class Times:
    """Latencies of one engine, seconds in the order of the calls.

    covered: of the calls beside a load, the share in which the load outlasted the call.
    """

    seconds: tuple[float, ...]
    covered: float | None = None

    def percentile_ms(self, percent: float) -> float | None:
        """Milliseconds; None where too few calls were made to say."""
        if percent > 99 and len(self.seconds) < TAIL_CALLS:
            return None
        return float(np.percentile(self.seconds, percent)) * 1e3

    def to_json(self) -> dict[str, Any]:
        """The distribution: every percentile, the tail, the extremes, in milliseconds."""
        hundred = np.percentile(self.seconds, np.arange(101)) * 1e3
        return {
            "calls": len(self.seconds),
            "p50_ms": self.percentile_ms(50),
            "p99_ms": self.percentile_ms(99),
            "p99.9_ms": self.percentile_ms(99.9),
            "percentiles_0_to_100_ms": [round(float(v), 5) for v in hundred],
            "covered": self.covered,
        }


def in_turns(
    calls: Mapping[str, Call],
    feeds: Mapping[str, Sequence[Feeds]],
    budget_s: float,
    load: Load | None = None,
    plan_s: float = 0.0,
) -> dict[str, Times]:
    """Time calls in turns until the budget is spent or there are enough.

    Args:
        calls: by name.
        feeds: of each call, the observations it goes round.
        budget_s: for all of them together, warm-up left out.
        load: what runs beside each call; None for nothing.
        plan_s: how long one run of the load takes, in seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    covered = dict.fromkeys(calls, 0)
    plans = dict.fromkeys(calls, 0)
    warm: dict[str, float] = {}
    for name, call in calls.items():
        for i in range(WARM_UP):
            begin = time.perf_counter()
            call(feeds[name][i % len(feeds[name])])
            took = time.perf_counter() - begin
        warm[name] = took
        if load is not None:
            plans[name] = min(_MOST_PLANS, 1 + int(_COVER * took / plan_s))
    slowest = max(warm.values(), default=0.0)
    # Fast engines are called more often in a turn, so that their tails are known too.
    order = [n for n in calls for _ in range(max(1, min(MOST_IN_A_TURN, int(slowest / warm[n]))))]
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + budget_s
        for turn in range(MOST_ROUNDS):
            for name in order:
                call, given = calls[name], feeds[name][turn % len(feeds[name])]
                if load is not None:
                    load.begin(plans[name])
                begin = time.perf_counter()
                call(given)
                seconds[name].append(time.perf_counter() - begin)
                if load is not None:
                    covered[name] += load.busy()
                    load.drain()
            if time.perf_counter() > end:
                break
    finally:
        gc.enable()
    shares = {n: covered[n] / len(seconds[n]) if load is not None else None for n in calls}
    return {name: Times(tuple(values), shares[name]) for name, values in seconds.items()}
