"""Plots as inline SVG: no script, no network, colours from the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 480, 180, 46, 34, 12


def histogram(values: Sequence[float], unit: str, title: str, *, bins: int = 24) -> Markup:
    """Counts of `values`; the largest 1 % may lie anywhere, so the axis is not cut."""
    counts, edges = np.histogram(np.asarray(values, float), bins=bins)
    tallest = max(int(counts.max()), 1)
    step = (_WIDTH - _LEFT - 8) / len(counts)
    bars = [
        f'<rect class="bar" x="{_LEFT + i * step:.1f}" width="{max(step - 1, 0.5):.1f}" '
        f'y="{_y(count / tallest):.1f}" height="{_y(0) - _y(count / tallest):.1f}">'
        f"<title>{edges[i]:.4g} to {edges[i + 1]:.4g} {escape(unit)}: {count}</title></rect>"
        for i, count in enumerate(counts)
        if count
    ]
    ticks = [
        _text(_LEFT, _HEIGHT - 18, f"{edges[0]:.3g}", "start"),
        _text(_WIDTH - 8, _HEIGHT - 18, f"{edges[-1]:.3g} {unit}", "end"),
        _text(_LEFT - 6, _y(1) + 4, str(tallest), "end"),
        _text(_LEFT - 6, _y(0) + 4, "0", "end"),
    ]
    return _figure(title, [*bars, _axis(), *ticks])


def bars(
    names: Sequence[str], values: Sequence[float], title: str, *, bound: float | None = None
) -> Markup:
    """One horizontal bar per name as a share of the largest value or of `bound`, marked in red."""
    top = max([*values, bound or 0.0, 1e-30])
    row, left, width = 24, 120, _WIDTH - 120 - 90
    parts = []
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        y, length = 8 + i * row, max(value / top * width, 1.0)
        parts += [
            _text(left - 8, y + 13, name, "end"),
            f'<rect class="bar" x="{left}" y="{y}" width="{length:.1f}" height="{row - 8}"/>',
            _text(left + length + 6, y + 13, f"{value:.3g}", "start"),
        ]
    height = 16 + row * len(names)
    if bound is not None:
        x = left + bound / top * width
        parts.append(f'<line class="bound" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - 8}"/>')
    return _figure(title, parts, height)


def heatmap(rows: Sequence[Sequence[int]], title: str) -> Markup:
    """Counts as shades on a logarithmic scale, reference down and candidate across."""
    counts = np.asarray(rows, float)
    shades = np.log1p(counts) / max(float(np.log1p(counts).max()), 1e-9)
    cell, left, top = 22, 46, 24
    parts = [_text(left, 14, "candidate's bin →", "start")]
    for i, line in enumerate(counts):
        parts.append(_text(left - 6, top + i * cell + 15, str(i), "end"))
        for j, count in enumerate(line):
            parts.append(
                f'<rect class="{"cell" if i == j else "cell off"}" x="{left + j * cell}" '
                f'y="{top + i * cell}" width="{cell - 1}" height="{cell - 1}" '
                f'fill-opacity="{shades[i, j]:.3f}"><title>bin {i} → {j}: {count:g}</title></rect>'
            )
    return _figure(title, parts, top + cell * len(counts) + 8)


def _y(share: float) -> float:
    return _TOP + (1 - share) * (_HEIGHT - _BOTTOM - _TOP)


def _axis() -> str:
    return f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{_y(0)}" y2="{_y(0)}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _figure(title: str, parts: Sequence[str], height: int = _HEIGHT) -> Markup:
    drawing = "".join(parts)
    return Markup(
        f'<figure><figcaption>{escape(title)}</figcaption><svg role="img" '
        f'aria-label="{escape(title)}" viewBox="0 0 {_WIDTH} {height}">{drawing}</svg></figure>'
    )
