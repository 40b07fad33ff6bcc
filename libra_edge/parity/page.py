"""`report.html`: one self-contained page, for screen, phone and print."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from libra_edge.bundle.manifest import Manifest
from libra_edge.parity import plots
from libra_edge.parity.detail import DimensionError, DimensionTokens
from libra_edge.parity.report import Report

_CSS = {"pass": "pass", "fail": "fail", "not measured": "gap"}


def html(report: Report) -> str:
    """Render the record."""
    environment = Environment(
        loader=PackageLoader("libra_edge.parity"), autoescape=True, undefined=StrictUndefined
    )
    page: str = environment.get_template("report.html.j2").render(
        report=report,
        manifest=Manifest.model_validate(report.manifest),
        plots=plots,
        css=_CSS.__getitem__,
        number=_number,
        percent=lambda share: f"{share:.2%}",
        differing=_differing,
        shares=_shares,
    )
    return page


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _differing(dimensions: Sequence[DimensionTokens]) -> list[float]:
    return [100 * (1 - dimension.agreement) for dimension in dimensions]


def _shares(dimensions: Sequence[DimensionError]) -> list[float]:
    return [100 * dimension.p99.value / dimension.span for dimension in dimensions]
