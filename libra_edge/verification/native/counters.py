"""The statistics of async mode, as they have to be."""

from __future__ import annotations

from collections import Counter
from typing import Any

from libra_edge.binding import abi
from libra_edge.policy.execution.pace import RefineAhead
from libra_edge.policy.executor import State
from libra_edge.verification.native import reference

_NAMES = (
    *("running_ticks", "hold_ticks", "fault_ticks", "holds", "faults", "underruns"),
    *("clamped_ticks", "slowed_ticks", "plans", "dropped_plans", "chunks", "dropped_chunks"),
)
_CHOICE = ("refine_ahead_steps", "refine_ahead_reason", "refiner_p99_steps")
_QUANTILES = {"p50": 2, "p90": 10, "p99": 100, "p999": 1000}
# "Quantiles are exact to 6 %."
_EXACT_TO = 16
_OCTAVES = 64


class Counters:
    """What `le_stats` counts since `le_start`, and what it says of `refine_ahead_steps`."""

    def __init__(self, ahead: RefineAhead) -> None:
        self._ahead = ahead
        self.planner_calls = self.refiner_calls = 0
        self._totals: Counter[str] = Counter()
        self._reasons: Counter[int] = Counter()
        self._ages: list[int] = []
        self._queues: list[int] = []
        self._state = State.HOLD

    def restart(self) -> None:
        """What came before a reset did not end in a hold or a fault."""
        self._state = State.HOLD

    def add(self, name: str) -> None:
        """Count something once."""
        self._totals[name] += 1

    def count(self, info: dict[str, Any]) -> None:
        """Count a tick."""
        state, before = State(info["state"]), self._state
        self._state = state
        self._queues.append(info["queue_steps"])
        self.add(f"{state.name.lower()}_ticks")
        if state is State.RUNNING:
            self._ages.append(info["plan_age_steps"])
            self._totals["clamped_ticks"] += bool(info["flags"] & abi.CLAMPED)
            self._totals["slowed_ticks"] += bool(info["flags"] & abi.SLOWED)
            return
        if state is State.HOLD:
            self._reasons[info["reason"]] += 1
            underrun = info["reason"] == reference.UNDERRUN
            self._totals["underruns"] += underrun and before is State.RUNNING
        if state is not before:
            self.add("holds" if state is State.HOLD else "faults")

    def expected(self) -> dict[str, Any]:
        """What `le_stats` has to say; histograms as what `histogram` finds wrong, nothing."""
        ticks = sum(self._totals[f"{state.name.lower()}_ticks"] for state in State)
        return {
            **{name: self._totals[name] for name in _NAMES},
            "ticks": ticks,
            "refine_ahead_steps": self._ahead.steps,
            "refine_ahead_reason": int(self._ahead.reason),
            "refiner_p99_steps": self._ahead.p99,
            "hold_reason_ticks": [self._reasons[i] for i in range(16)],
            "planner_ns calls": self.planner_calls,
            "refiner_ns calls": self.refiner_calls,
            "tick_ns calls": ticks,
            **dict.fromkeys(("plan_age_steps", "queue_steps", "tick_ns", "planner_ns"), ""),
            "refiner_ns": "",
        }

    def found(self, raw: abi.StatsInfo) -> dict[str, Any]:
        """The same of what the library says."""
        return {
            **{name: getattr(raw, name) for name in (*_NAMES, *_CHOICE, "ticks")},
            "hold_reason_ticks": list(raw.hold_reason_ticks),
            "planner_ns calls": raw.planner_ns.count,
            "refiner_ns calls": raw.refiner_ns.count,
            "tick_ns calls": raw.tick_ns.count,
            "plan_age_steps": histogram(raw.plan_age_steps, self._ages),
            "queue_steps": histogram(raw.queue_steps, self._queues),
            **{
                name: timings(getattr(raw, name))
                for name in ("tick_ns", "planner_ns", "refiner_ns")
            },
        }


def histogram(found: abi.Histogram, values: list[int]) -> str:
    """What is wrong with a histogram of these values; nothing where it is right."""
    octaves = Counter(value.bit_length() for value in values)
    wanted = {"count": len(values), "sum": sum(values), "max": max(values, default=0)}
    for name, value in wanted.items():
        if getattr(found, name) != value:
            return f"{name} is {getattr(found, name)}, not {value}"
    if list(found.octaves) != [octaves[i] for i in range(_OCTAVES)]:
        return f"octaves are {list(found.octaves)}"
    ordered = sorted(values)
    for name, parts in _QUANTILES.items():
        rank = (len(values) + 1) // 2 if parts == 2 else len(values) - len(values) // parts
        least = ordered[rank - 1] if values else 0
        if not least <= getattr(found, name) <= least + least // _EXACT_TO:
            return f"{name} is {getattr(found, name)}, not {least}"
    return ""


def timings(found: abi.Histogram) -> str:
    """What is wrong with a histogram of times that nobody foresees."""
    quantiles = [getattr(found, name) for name in _QUANTILES]
    if sum(found.octaves) != found.count:
        return "octaves do not add up"
    if quantiles != sorted(quantiles) or quantiles[-1] > found.max:
        return "quantiles do not rise"
    possible = found.max <= found.sum <= found.max * found.count
    return "" if possible else "the sum is not that of so many values"
