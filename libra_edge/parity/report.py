"""What `verify` found, as one versioned record: report.json, report.md and report.html.

The record is complete: the other two forms are renderings of it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from libra_edge.bundle.manifest import Manifest, canonical_json
from libra_edge.parity.bounds import BoundedLatency, bounded_latencies
from libra_edge.parity.detail import PlannerDetail, RefinerDetail
from libra_edge.parity.gates import Check, Verdict
from libra_edge.parity.latency import Latency
from libra_edge.parity.layer_map import LayerSensitivity, read_sensitivities
from libra_edge.parity.non_inferiority import PairedCheck, PairedTask
from libra_edge.parity.verify import Verification


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CheckFacts(_Facts):
    """One comparison; `value` and `threshold` are null where nothing could be measured."""

    stage: str
    metric: str
    value: float | None
    threshold: float | None
    samples: int
    verdict: Verdict
    note: str


class DenoisingStep(_Facts):
    """Error of the noisy actions after one denoising step, in shares of their range."""

    p50: float
    p99: float
    max: float


class Report(_Facts):
    """Everything a person or a CI needs to decide on a release.

    planner, refiner: release against checkpoint, end to end, where measured; denoising: the same
    step by step, from the same intents and noise; latencies: empty where
    the release's runtime does not run; roofline: medians next to the target's bounds; sensitivity:
    what each layer does alone, where the build searched for layers to keep; closed_loop: paired
    episodes by task, where they were run; machine: what it was measured on.
    """

    schema_version: Literal[1] = 1
    verdict: Verdict
    release_id: str
    manifest: dict[str, Any]
    checks: tuple[CheckFacts, ...]
    planner: PlannerDetail | None
    refiner: RefinerDetail | None
    denoising: tuple[DenoisingStep, ...]
    latencies: tuple[Latency, ...]
    roofline: tuple[BoundedLatency, ...]
    sensitivity: tuple[LayerSensitivity, ...]
    closed_loop: tuple[PairedTask, ...]
    machine: str
    samples: int
    seed: int
    data: str

    def to_json(self) -> bytes:
        """`report.json`."""
        return canonical_json(self.model_dump(mode="json"))

    def count(self, verdict: Verdict) -> int:
        """How many checks ended with this verdict."""
        return sum(check.verdict == verdict for check in self.checks)


def check_facts(checks: Sequence[Check]) -> tuple[CheckFacts, ...]:
    """Checks as the report holds them."""
    return tuple(CheckFacts.model_validate(check.to_json()) for check in checks)


def overall(checks: Sequence[Check]) -> Verdict:
    """A failure counts before a gap, a gap before success."""
    verdicts = {check.verdict for check in checks}
    order: tuple[Verdict, ...] = ("fail", "not measured", "pass")
    return next((verdict for verdict in order if verdict in verdicts), "not measured")


def json_schema() -> dict[str, Any]:
    """The JSON schema of `report.json`."""
    schema = Report.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


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
    latencies = result.behind.latencies
    paired = (check.tasks for check in result.checks if isinstance(check, PairedCheck))
    return Report(
        verdict=overall(result.checks),
        release_id=result.manifest.release_id,
        manifest=result.manifest.model_dump(mode="json"),
        checks=check_facts(result.checks),
        planner=result.behind.planner,
        refiner=result.behind.refiner,
        denoising=(),
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
        "measured.",
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
    if report.latencies:
        speeds = ", ".join(
            f"{x.name} {x.p50_ms:.2f} ms (p99 {x.p99_ms:.2f})" for x in report.latencies
        )
        lines += ["", f"Median latency on {report.machine}, one thread: {speeds}."]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
