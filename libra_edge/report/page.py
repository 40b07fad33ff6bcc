"""`report.html`: one self-contained page, for screen, phone and print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined

from libra_edge.bundle.layer_table import layer_blocks, precision_shares, within
from libra_edge.bundle.manifest import Manifest
from libra_edge.evaluation.non_inferiority import PairedTask
from libra_edge.report import figures
from libra_edge.report.record import CheckFacts, Report
from libra_edge.verification.details.differences import Interval

_CSS = {"pass": "pass", "fail": "fail", "not measured": "gap"}


@dataclass(frozen=True)
class Figure:
    """A number that a reader wants first."""

    name: str
    value: str
    note: str


def html(report: Report) -> str:
    """Render the record."""
    environment = Environment(
        loader=PackageLoader("libra_edge.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    manifest = Manifest.model_validate(report.manifest)
    shares = precision_shares(manifest.layers)
    page: str = environment.get_template("report.html.j2").render(
        report=report,
        manifest=manifest,
        manifest_text=manifest.to_bytes().decode(),
        figures=figures,
        stages=[(stage, list(checks)) for stage, checks in groupby(report.checks, _stage)],
        headline=_headline(report, manifest),
        blocks=layer_blocks(manifest.layers),
        shares=shares,
        color=_colors([share.precision for share in shares]),
        paired_total=_total(report.closed_loop),
        css=_CSS.__getitem__,
        number=_number,
        change=_change,
        percent=lambda share: f"{share:.2%}",
        size=figures.size,
        within=within,
    )
    return page


def _stage(check: CheckFacts) -> str:
    return check.stage


def _headline(report: Report, manifest: Manifest) -> list[Figure]:
    """Parity first, then speed, then size."""
    found = []
    if report.planner:
        agreement = report.planner.agreement
        found.append(Figure("tokens equal", f"{agreement.value:.2%}", f"≥ {agreement.low:.2%}"))
    if report.refiner:
        worst = max(report.refiner.dimensions, key=lambda dim: dim.p99.value / dim.span)
        share = worst.p99.value / worst.span
        found.append(Figure("p99 action error", f"{share:.2g}", f"of range, {worst.name}"))
    if report.closed_loop:
        total = _total(report.closed_loop)
        kept, had = total.both + total.only_release, total.both + total.only_checkpoint
        found.append(
            Figure("episodes solved", str(kept), f"checkpoint {had} of {_episodes(total)}")
        )
    average = report.roofline[-1]
    if average.measured_ms is not None:
        found.append(Figure(average.what, f"{average.measured_ms:.3g} ms", "median, one thread"))
    engines = manifest.engines.by_name
    weight = sum(manifest.members[one.member].size_bytes for one in engines.values())
    both = f"{manifest.recipe}, {'both' if len(engines) == 2 else 'one'}"
    found.append(Figure("engines", figures.size(weight), both))
    return found


def _total(tasks: tuple[PairedTask, ...]) -> PairedTask:
    return PairedTask(
        task="all",
        both=sum(task.both for task in tasks),
        only_checkpoint=sum(task.only_checkpoint for task in tasks),
        only_release=sum(task.only_release for task in tasks),
        neither=sum(task.neither for task in tasks),
    )


def _episodes(task: PairedTask) -> int:
    return task.both + task.only_checkpoint + task.only_release + task.neither


def _colors(precisions: list[str]) -> Mapping[str, str]:
    """A style per precision: floats grey, the rest in turn."""
    narrow = [name for name in precisions if name != "fp32"]
    return {"fp32": "k0"} | {name: f"k{1 + i % 5}" for i, name in enumerate(narrow)}


def _change(share: Interval | None) -> str:
    if share is None:
        return "–"
    return f"{share.value:+.0%} ({share.low:+.0%} to {share.high:+.0%})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
