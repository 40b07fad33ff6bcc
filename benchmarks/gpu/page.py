"""The page: one table per policy, one of ratios, the refusal, the conditions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpu.rows import ALONE, EAGER, GRAPH, NAIVE, ORT, ORT_GRAPH, SPLIT, UNROLLED, Row

HEAD = [
    "# A day on a GPU",
    "",
    "Written by `make gpu-check` (`benchmarks/gpu_check.py`); raw figures in `gpu-check.json`. A",
    "call is timed from arrays of the host to arrays of the host: observation to the GPU, engine,",
    "actions back. *Naive* encodes the observation in each denoising step; *split* is the",
    "compiler's split run in PyTorch, context once, tables for what depends on time alone;",
    "*fused* are the exported graphs.",
]


def table(rows: Sequence[Row]) -> list[str]:
    """Engines running alone."""
    lines = [
        "| engine | precision | p50 ms | p99 ms | p99.9 ms | calls | over eager "
        "| parity with the policy on the CPU | verdict |",
        "|---|---|---:|---:|---:|---:|---:|---|---|",
    ]
    for row in (r for r in rows if r.situation == ALONE):
        lines.append(
            f"| {row.name} | {row.precision} | {times(row)} | {over(row, rows)} "
            f"| {parity(row)} | {verdict(row)} |"
        )
    return lines


def times(row: Row) -> str:
    """Three percentiles and the number of calls, as cells."""
    if row.times is None:
        return "– | – | – | 0"
    cells = [number(row.times.percentile_ms(p)) for p in (50, 99, 99.9)]
    return " | ".join([*cells, str(len(row.times.seconds))])


def number(value: float | None) -> str:
    """Three digits."""
    return "–" if value is None else f"{value:.3f}"


def median(rows: Sequence[Row], row: Row, form: str, engine: str) -> float | None:
    """The median of another engine of the same policy, precision and part, alone."""
    for r in rows:
        same = (r.policy, r.precision, r.part) == (row.policy, row.precision, row.part)
        if same and (r.form, r.engine, r.situation) == (form, engine, ALONE) and r.times:
            return r.times.percentile_ms(50)
    return None


def over(row: Row, rows: Sequence[Row]) -> str:
    """How many times as fast as the eager engine of the same precision; the refiner's is naive."""
    base = median(rows, row, NAIVE if row.part == "refiner" else "", EAGER)
    own = row.times.percentile_ms(50) if row.times else None
    return f"{base / own:.2f}×" if base and own else "–"


def parity(row: Row) -> str:
    """The figures of the checks, in words; or why there are none."""
    if row.why:
        return row.why
    words = []
    for check in row.checks:
        if check.metric == "finite" and check.verdict == "pass":
            continue
        where = "golden: " if check.stage == "golden vectors" else ""
        words.append(f"{where}{check.metric} {check.value:.3g} (gate {check.threshold:g})")
    return "; ".join(words)


def verdict(row: Row) -> str:
    """Of the gates; in brackets where no recipe stands behind them."""
    word = "not run" if row.why else ("met" if row.passed else "missed")
    return f"**{word}**" if row.judged and word != "met" else word if row.judged else f"({word})"


def ratios(rows: Sequence[Row]) -> list[str]:
    """The refiner: every step of the way in one line."""
    ways = (
        ("naive, eager", NAIVE, EAGER),
        ("naive, CUDA graph", NAIVE, GRAPH),
        ("split, eager", SPLIT, EAGER),
        ("split, CUDA graph", SPLIT, GRAPH),
        ("fused, CUDA provider", UNROLLED, ORT),
        ("fused, CUDA provider, CUDA graph", UNROLLED, ORT_GRAPH),
    )
    lines = [
        "| policy | precision | " + " | ".join(name for name, *_ in ways) + " |",
        "|---|---|" + "---:|" * len(ways),
    ]
    for policy, precision in dict.fromkeys((r.policy, r.precision) for r in rows):
        probe = Row(policy, precision, "refiner", "", "")
        values = [median(rows, probe, form, engine) for _, form, engine in ways]
        base = values[0]
        cells = [f"{v:.3f} ({base / v:.2f}×)" if v and base else "–" for v in values]
        lines.append(f"| {policy} | {precision} | {' | '.join(cells)} |")
    return lines


def beside_table(rows: Sequence[Row]) -> list[str]:
    """Refiners beside a planner."""
    lines = [
        "| policy | engine | precision | planner | p50 ms | p99 ms | p99.9 ms | calls "
        "| p50 over alone | calls the planner outlasted | parity | verdict |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for row in (r for r in rows if r.situation != ALONE):
        base = median(rows, row, row.form, row.engine)
        own = row.times.percentile_ms(50) if row.times else None
        slower = f"{own / base:.2f}×" if own and base else "–"
        covered = row.times.covered if row.times else None
        share = "–" if covered is None else f"{covered:.0%}"
        priority = "refiner first" if "priorities" in row.situation else "equal"
        lines.append(
            f"| {row.policy} | {row.name} | {row.precision} | {priority} | {times(row)} | {slower} "
            f"| {share} | {parity(row)} | {verdict(row)} |"
        )
    return lines


def power_lines(rows: Sequence[Row]) -> Iterator[str]:
    """What the card draws while one engine runs over and over."""
    for row in (r for r in rows if r.draw):
        draw = row.draw or {}
        yield (
            f"- {row.policy}, {row.name}, {row.precision}, over and over: {draw['watts']:.0f} W at "
            f"{draw['sm_clock_mhz']:.0f} MHz, {draw['calls_per_s']:.0f} calls/s, "
            f"{draw['joules_per_call'] * 1e3:.0f} mJ per call ({draw['readings']:.0f} readings)"
        )


def page(report: Mapping[str, Any], rows: Sequence[Row], notes: Sequence[str]) -> str:
    """All of it as Markdown."""
    refusal, lines = report["refusal"], [*HEAD, ""]
    lines += [f"{note}" for note in notes]
    lines += ["", "## An RTX 4090 release on this GPU", ""]
    lines += [f"> {s}" for s in refusal.get("sentences", [refusal.get("why", "")])]
    lines += ["", f"{'Met' if refusal['met'] else '**Missed**'}: {refusal['words']}", ""]
    for name, title in report["policies"].items():
        lines += [f"## {title}", "", *table([r for r in rows if r.policy == name]), ""]
    lines += ["## Refiner, medians in ms (times as fast as naive, eager)", "", *ratios(rows), ""]
    lines += ["## The refiner while the planner runs", ""]
    lines += [
        "The planner's CUDA graph (PyTorch) is queued on another stream, often enough to outlast",
        "the call, right before it: the worst moment. *Refiner first*: the refiner's stream has",
        "the highest priority, the planner's the lowest.",
        "",
        *beside_table(rows),
        "",
    ]
    drawn = list(power_lines(rows))
    lines += ["## Power", "", *(drawn or ["Could not be read."]), "", "## Conditions", ""]
    lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in report["facts"].items()]
    lines += [f"- {condition}" for condition in report["conditions"]]
    return "\n".join(lines) + "\n"
