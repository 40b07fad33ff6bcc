"""What `verify` found, as one versioned record: report.json, report.md and report.html.

The record (`libra_edge.report.record`) is complete: the other two forms are renderings of it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from libra_edge.bundle.layer_table import precision_shares
from libra_edge.bundle.manifest import Manifest
from libra_edge.evaluation.non_inferiority import PairedCheck
from libra_edge.limits import overall
from libra_edge.parity.gates import Check
from libra_edge.report.bounded_latencies import bounded_latencies
from libra_edge.report.record import CheckFacts, Report, json_schema
from libra_edge.report.sensitivities import read_sensitivities
from libra_edge.verification.result import Verification

__all__ = ["Report", "json_schema", "make_report", "markdown"]


def check_facts(checks: Sequence[Check]) -> tuple[CheckFacts, ...]:
    """Checks as the report holds them."""
    return tuple(CheckFacts.model_validate(check.to_json()) for check in checks)


def make_report(
    result: Verification,
    *,
    samples: int,
    seed: int,
    data: Path | None,
    build: Mapping[str, Any] | None = None,
) -> Report:
    """The record of one verification, on this machine.

    Args:
        result: what was found.
        samples: observations that were asked for.
        seed: of their choice.
        data: where they come from; None: made up.
        build: the release's build report, for its sensitivities; None where there is none.
    """
    behind, latencies = result.behind, result.behind.latencies
    paired = (check.tasks for check in result.checks if isinstance(check, PairedCheck))
    return Report(
        verdict=overall(check.verdict for check in result.checks),
        release_id=result.manifest.release_id,
        manifest=result.manifest.model_dump(mode="json"),
        checks=check_facts(result.checks),
        gates=result.gates,
        left_out=result.left_out,
        unchecked=result.unchecked,
        judged_by=result.judged_by,
        power=result.power,
        quick=result.quick,
        planner=behind.planner,
        refiner=behind.refiner,
        denoising=behind.denoising,
        trajectory=behind.trajectory,
        latencies=latencies,
        roofline=bounded_latencies(result.manifest, latencies),
        sensitivity=read_sensitivities(build),
        closed_loop=next(paired, ()),
        machine=f"{_processor()}, {platform.system()} {platform.machine()}",
        samples=samples,
        seed=seed,
        data="made up" if data is None else f"dataset {data.name}",
    )


def _processor() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "unknown processor")


def markdown(report: Report) -> str:
    """A summary for a pull request."""
    manifest = Manifest.model_validate(report.manifest)
    passed, failed, missing = (report.count(v) for v in ("pass", "fail", "not measured"))
    lines = [
        f"### libra-edge verify: {report.verdict.upper()}",
        "",
        f"`{manifest.name}` for {manifest.target}, {manifest.recipe}, release "
        f"`{report.release_id[:12]}`: {passed} checks passed, {failed} failed, {missing} not "
        "measured." + (" Quick: fewer checks than a release needs." if report.quick else ""),
        *(f"\n**Loosened gate**, {one}." for one in report.loose),
        "",
        "| stage | metric | value | gate | N | verdict |",
        "|---|---|---|---|---|---|",
        *(
            f"| {c.stage} | {c.metric} | {_number(c.value)} | {_number(c.threshold)} "
            f"| {c.samples} | {'pass' if c.verdict == 'pass' else f'**{c.verdict}**'} |"
            for c in report.checks
        ),
    ]
    if report.planner:
        agreement = report.planner.agreement
        lines += [
            "",
            f"Tokens equal {agreement.value:.2%} (95 % {agreement.low:.2%} to "
            f"{agreement.high:.2%}), weighted by margin {report.planner.weighted_agreement:.2%}.",
        ]
    if report.refiner:
        lines += ["", "| action | p50 | p95 | p99 | max | range |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {d.name} [{d.unit}] | {d.p50:.2g} | {d.p95:.2g} | {d.p99.value:.2g} "
            f"| {d.max:.2g} | {d.span:g} |"
            for d in report.refiner.dimensions
        ]
    if report.denoising:
        errors = ", ".join(f"{step.mean.value:.2g}" for step in report.denoising.steps)
        lines += ["", f"Mean error after each denoising step, in shares of range: {errors}."]
    if report.closed_loop:
        lines += ["", "| task | both | only checkpoint | only release | neither |"]
        lines += ["|---|---|---|---|---|"]
        lines += [
            f"| {t.task} | {t.both} | {t.only_checkpoint} | {t.only_release} | {t.neither} |"
            for t in report.closed_loop
        ]
    lines += _speed(report)
    if report.power:
        lines += ["", f"{report.power[0].upper()}{report.power[1:]}."]
    if report.unchecked:
        lines += ["", f"Claimed, not checked: {'; '.join(report.unchecked)}."]
    if manifest.layers:
        shares = ", ".join(
            f"{one.layers} in {one.precision}" for one in precision_shares(manifest.layers)
        )
        lines += ["", f"Layers by what they run in: {shares}."]
    return "\n".join(lines) + "\n"


def _speed(report: Report) -> list[str]:
    if not report.latencies:
        return []
    speeds = ", ".join(f"{x.name} {x.p50_ms:.2f} ms (p99 {x.p99_ms:.2f})" for x in report.latencies)
    words = f"Median latency on {report.machine}, one thread: {speeds}"
    average = report.roofline[-1]
    if average.measured_ms is not None:
        words += f", {average.what} {average.measured_ms:.2f} ms"
    if average.bound_ms is not None:
        words += f" (bound of the target {average.bound_ms:.3g} ms)"
    return ["", f"{words}."]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
