"""What quantising each layer alone does: read from a build for the report, or a page of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from libra_edge.models import Strict
from libra_edge.policy.config import ActionDim

if TYPE_CHECKING:
    from libra_edge.compiler.search.sensitivity import Sensitivity

_BAR_WIDTH, _ROW_HEIGHT, _NAME_WIDTH = 360, 18, 330


class LayerSensitivity(Strict):
    """What quantising one layer alone did where the release was compiled.

    gate_used: the largest share of a parity gate that it uses up; tokens: share of equal tokens;
    action: p99 action error as a share of the range; kept: it stays in high precision.
    """

    layer: str
    gate_used: float
    tokens: float
    action: float
    kept: bool


def read_sensitivities(build: Mapping[str, Any] | None) -> tuple[LayerSensitivity, ...]:
    """The search's measurements of each layer alone, the worst first, where the build made them."""
    if build is None:
        return ()
    kept = {row["layer"] for row in build.get("kept", [])}
    found = [
        LayerSensitivity(
            layer=row["layer"],
            gate_used=row["gate_used"],
            tokens=row["effect"]["tokens"],
            action=row["effect"]["action"],
            kept=row["layer"] in kept,
        )
        for row in build.get("sensitivity", [])
    ]
    return tuple(sorted(found, key=lambda one: (-one.gate_used, one.layer)))


def markdown(
    title: str, about: Sequence[str], ranked: Sequence[Sensitivity], dims: Sequence[ActionDim]
) -> str:
    """The ranked table as a page."""
    units = [f"{dim.name} [{dim.unit}]" for dim in dims]
    columns = ["", "layer", "becomes", "gate used", "tokens equal", "p99 action / range", *units]
    lines = [f"# {title}", "", *about, "", _row(columns), _row(["---"] * len(columns))]
    for place, one in enumerate(ranked, 1):
        effect = one.effect
        cells = [
            str(place),
            f"`{one.layer}`",
            one.precision,
            f"{one.gate_used:.1%}",
            f"{effect.tokens:.4f}",
            f"{effect.action:.3%}",
            *(f"{error:.2g}" for error in effect.physical),
        ]
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def svg(title: str, ranked: Sequence[Sensitivity]) -> str:
    """Bars of the gate that each layer uses up, in one file without fonts, scripts or links."""
    largest = max((one.gate_used for one in ranked), default=0.0) or 1.0
    height = _ROW_HEIGHT * (len(ranked) + 3)
    width = _NAME_WIDTH + _BAR_WIDTH + 70
    rows = [_bar(i, one, largest) for i, one in enumerate(ranked)]
    full = _NAME_WIDTH + _BAR_WIDTH / largest
    gate = [
        f'<line x1="{full:.1f}" x2="{full:.1f}" y1="{2 * _ROW_HEIGHT}" y2="{height}" '
        'stroke="#b00" stroke-dasharray="4 3"/>'
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            f'<text x="8" y="{_ROW_HEIGHT}" font-weight="bold">{_escaped(title)}</text>',
            *rows,
            *(gate if largest >= 1 else []),
            "</svg>\n",
        ]
    )


def _bar(place: int, one: Sensitivity, largest: float) -> str:
    top = (place + 2) * _ROW_HEIGHT
    length = max(_BAR_WIDTH * one.gate_used / largest, 0.5)
    color = "#2a6fb0" if one.layer.startswith("planner") else "#d08020"
    middle = top + _ROW_HEIGHT - 6
    return (
        f'<text x="{_NAME_WIDTH - 6}" y="{middle}" text-anchor="end">{_escaped(one.layer)}</text>'
        f'<rect x="{_NAME_WIDTH}" y="{top + 2}" width="{length:.1f}" '
        f'height="{_ROW_HEIGHT - 5}" fill="{color}"/>'
        f'<text x="{_NAME_WIDTH + length + 5:.1f}" y="{middle}">{one.gate_used:.1%}</text>'
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
