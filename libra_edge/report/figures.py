"""What the record says, as plots: one function per figure of the page."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from libra_edge.bundle.manifest import Manifest
from libra_edge.report import plots
from libra_edge.report.bounded_latencies import BoundedLatency
from libra_edge.report.plots import Bar, Spread
from libra_edge.report.record import CheckFacts
from libra_edge.report.sensitivities import LayerSensitivity
from libra_edge.verification.details.differences import (
    DenoisingDetail,
    PlannerDetail,
    RefinerDetail,
)
from libra_edge.verification.details.latency import Latency

MOST_LAYERS = 24


def tokens(planner: PlannerDetail) -> Markup:
    """Tokens that differ, per dimension."""
    shares = [(d.name, 100 * (1 - d.agreement)) for d in planner.dimensions]
    rows = [Bar(name, share, f"{share:.3g} %") for name, share in shares]
    return plots.bars(rows, "tokens that differ, by action dimension")


def confusion(planner: PlannerDetail) -> Markup:
    """Which bin became which."""
    return plots.heatmap(planner.confusion, "bins: policy down, release across (shade: log count)")


def margins(planner: PlannerDetail) -> Markup:
    """How sure the policy was of the tokens that differ; nothing where none does."""
    if not planner.differing_margins:
        return Markup("")
    title = "the policy's margin where tokens differ"
    return plots.histogram(planner.differing_margins, "logits", title)


def errors(refiner: RefinerDetail, checks: Sequence[CheckFacts]) -> Markup:
    """Action errors per dimension, as shares of its range, and the gate that they had to pass."""
    rows = [
        Spread(
            dim.name,
            *(100 * value / dim.span for value in (dim.p50, dim.p95, dim.p99.value, dim.max)),
        )
        for dim in refiner.dimensions
    ]
    title = "action error, % of range: median ●, to p95 ▬, p99 ▮, to the largest ─"
    gates = [
        check.threshold
        for check in checks
        if check.stage.endswith("end to end") and "action error / range" in check.metric
    ]
    bound = None if not gates or gates[0] is None else 100 * gates[0]
    return plots.spreads(
        rows, "% of range", title + (", gate of all ╎" if bound else ""), bound=bound
    )


def denoising(detail: DenoisingDetail) -> Markup:
    """How far the noisy actions are apart after each step."""
    series = {
        "max": [step.max for step in detail.steps],
        "p99": [step.p99 for step in detail.steps],
        "mean": [step.mean.value for step in detail.steps],
    }
    title = f"error after each denoising step, {detail.samples} samples, {detail.runs_in}"
    return plots.curves(series, "share of range", title)


def latency(one: Latency) -> Markup:
    """Every call that was timed."""
    return plots.histogram(one.calls_ms, "ms", f"{one.name}, {len(one.calls_ms)} calls")


def roofline(rows: Sequence[BoundedLatency]) -> Markup:
    """Medians as bars, the target's bounds as ticks."""
    bars = [Bar(row.what, row.measured_ms, _beside(row), row.bound_ms) for row in rows]
    return plots.bars(bars, "median ▬ next to the bound of the target ▮, ms")


def _beside(row: BoundedLatency) -> str:
    measured = "not measured" if row.measured_ms is None else f"{row.measured_ms:.3g} ms"
    if row.bound_ms is None:
        return measured
    limit = f", {row.limit}" if row.limit else ""
    return f"{measured}, bound {row.bound_ms:.3g} ms{limit}"


def sensitivity(layers: Sequence[LayerSensitivity]) -> Markup:
    """The share of the parity gates that quantising each layer alone uses up."""
    shown = layers[:MOST_LAYERS]
    rows = [
        Bar(one.layer, 100 * one.gate_used, f"{one.gate_used:.1%}" + (", kept" * one.kept))
        for one in shown
    ]
    title = f"gate used by a layer quantised alone, the worst {len(shown)} of {len(layers)}"
    over = any(one.gate_used >= 1 for one in shown)
    return plots.bars(rows, title, bound=100.0 if over else None)


def sizes(manifest: Manifest) -> Markup:
    """What a release weighs, and where."""
    members = sorted(manifest.members.items(), key=lambda item: -item[1].size_bytes)
    whole = sum(member.size_bytes for _, member in members)
    rows = [
        Bar(name, member.size_bytes, f"{size(member.size_bytes)}, {member.size_bytes / whole:.0%}")
        for name, member in members
        if member.size_bytes > whole / 200
    ]
    return plots.bars(rows, f"members from 0.5 % of {size(whole)}")


def size(count_bytes: float) -> str:
    """Bytes in the unit that reads best."""
    if count_bytes < 1e3:
        return f"{count_bytes:.0f} B"
    return f"{count_bytes / 1e6:.1f} MB" if count_bytes >= 1e6 else f"{count_bytes / 1e3:.1f} kB"
