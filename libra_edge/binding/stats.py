"""The runtime's statistics as a dict, and as text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from libra_edge.binding import abi

HISTOGRAMS = {
    "tick_ns": ("tick_seconds", 1e-9, "Time inside le_tick."),
    "planner_ns": ("planner_seconds", 1e-9, "Planner calls."),
    "refiner_ns": ("refiner_seconds", 1e-9, "Refiner calls."),
    "plan_age_steps": ("plan_age_steps", 1, "Age of the plan behind every action sent."),
    "queue_steps": ("queue_steps", 1, "Actions left after every tick."),
}
# What is no count but a choice, and how it came about.
GAUGES = {
    "refine_ahead_steps": "Actions left at which the next chunk is begun.",
    "refiner_p99_steps": "Control steps that a refiner call takes, but for one in a hundred.",
}
_SKIPPED = (
    *("struct_size", "reserved0", "reserved", "hold_reason_ticks", "refine_ahead_reason"),
    *HISTOGRAMS,
    *GAUGES,
)
COUNTERS = tuple(name for name, *_ in abi.StatsInfo._fields_ if name not in _SKIPPED)


def to_dict(raw: abi.StatsInfo) -> dict[str, Any]:
    """Counters as numbers, `hold_reason_ticks` by reason, each histogram as a dict.

    `refine_ahead_steps` as it is at present, with `refine_ahead_reason` in words.
    """
    reasons = {
        reason: raw.hold_reason_ticks[number]
        for number, reason in enumerate(abi.REASONS)
        if raw.hold_reason_ticks[number]
    }
    return {
        **{name: getattr(raw, name) for name in COUNTERS},
        "hold_reason_ticks": reasons,
        **{name: getattr(raw, name) for name in GAUGES},
        "refine_ahead_reason": abi.AHEAD_REASONS[raw.refine_ahead_reason],
        **{name: _histogram(getattr(raw, name)) for name in HISTOGRAMS},
    }


def to_prometheus(stats: Mapping[str, Any], policy: str) -> str:
    """The text form that Prometheus scrapes.

    Args:
        stats: what `Policy.stats` gave.
        policy: value of the label `policy`, for example the release's name.
    """
    label = f'policy="{_escape(policy)}"'
    lines = []
    for name in COUNTERS:
        lines += [f"# TYPE libra_edge_{name}_total counter"]
        lines += [f"libra_edge_{name}_total{{{label}}} {stats[name]}"]
    lines += ["# TYPE libra_edge_hold_reason_ticks_total counter"]
    for reason, count in stats["hold_reason_ticks"].items():
        lines += [
            f'libra_edge_hold_reason_ticks_total{{{label},reason="{_escape(reason)}"}} {count}'
        ]
    for name, words in GAUGES.items():
        lines += [f"# HELP libra_edge_{name} {words}", f"# TYPE libra_edge_{name} gauge"]
        lines += [f"libra_edge_{name}{{{label}}} {stats[name]}"]
    for name, (metric, unit, words) in HISTOGRAMS.items():
        lines += _prometheus_histogram(f"libra_edge_{metric}", unit, words, label, stats[name])
    return "\n".join(lines) + "\n"


def _histogram(raw: abi.Histogram) -> dict[str, Any]:
    numbers = {name: getattr(raw, name) for name, *_ in raw._fields_ if name != "octaves"}
    mean = raw.sum / raw.count if raw.count else 0.0
    return {**numbers, "mean": mean, "octaves": list(raw.octaves)}


def _prometheus_histogram(
    metric: str, unit: float, words: str, label: str, histogram: Mapping[str, Any]
) -> list[str]:
    lines = [f"# HELP {metric} {words}", f"# TYPE {metric} histogram"]
    below = 0
    used = [octave for octave, count in enumerate(histogram["octaves"]) if count]
    for octave in range(max(used, default=0) + 1):
        below += histogram["octaves"][octave]
        bound = (2**octave - 1) * unit
        lines.append(f'{metric}_bucket{{{label},le="{bound:.9g}"}} {below}')
    lines.append(f'{metric}_bucket{{{label},le="+Inf"}} {histogram["count"]}')
    lines.append(f"{metric}_sum{{{label}}} {histogram['sum'] * unit:.9g}")
    lines.append(f"{metric}_count{{{label}}} {histogram['count']}")
    return lines


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
