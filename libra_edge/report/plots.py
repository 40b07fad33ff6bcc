"""Plots as inline SVG: no script, no network, colours from the page's style sheet.

Drawn 340 units wide, so that words stay legible where a phone shows a plot one to one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

_WIDTH, _HEIGHT, _LEFT, _RIGHT = 340, 170, 40, 332
_FLOOR, _CEILING = 132.0, 18.0
_ROW = 32
_LETTER, _LINE = 5.8, 11
_NUMBERED_BINS = 20


@dataclass(frozen=True)
class Bar:
    """One row of `bars`; without a value there is no bar. mark: a tick to hold it against."""

    name: str
    value: float | None
    note: str
    mark: float | None = None


@dataclass(frozen=True)
class Spread:
    """Percentiles of one dimension's error, all in the same unit."""

    name: str
    p50: float
    p95: float
    p99: float
    largest: float


def histogram(values: Sequence[float], unit: str, title: str, *, bins: int = 24) -> Markup:
    """Counts of `values` with median and 99th percentile; the axis reaches to the largest."""
    first, last = float(min(values)), float(max(values))
    if first == last:
        first, last = 0.0, 2 * last or 1.0
    counts, edges = np.histogram(np.asarray(values, float), bins=bins, range=(first, last))
    tallest, low, high = max(int(counts.max()), 1), float(edges[0]), float(edges[-1])
    step = (_RIGHT - _LEFT) / len(counts)
    rects = [
        f'<rect class="bar" x="{_LEFT + i * step:.1f}" width="{max(step - 1, 0.5):.1f}" '
        f'y="{_up(count / tallest):.1f}" height="{_FLOOR - _up(count / tallest):.1f}">'
        f"<title>{edges[i]:.4g} to {edges[i + 1]:.4g} {escape(unit)}: {count}</title></rect>"
        for i, count in enumerate(counts)
        if count
    ]
    p50, p99 = (float(value) for value in np.percentile(values, [50, 99]))
    marks = []
    for value in (p50, p99):
        x = _LEFT + (value - low) / (high - low) * (_RIGHT - _LEFT)
        marks.append(_line("mark", x, _CEILING - 8, x, _FLOOR))
    words = f"median {p50:.3g} {unit}, p99 {p99:.3g} {unit} (lines)"
    ticks = [
        _text(_LEFT, _FLOOR + 14, f"{low:.3g}"),
        _text(_RIGHT, _FLOOR + 14, f"{high:.3g} {unit}", "end"),
        _text(_LEFT - 5, _CEILING + 4, str(tallest), "end"),
        _text(_LEFT - 5, _FLOOR + 4, "0", "end"),
        _text(_LEFT, _FLOOR + 30, words),
    ]
    return _figure(title, words, [*rects, *marks, _axis(), *ticks])


def bars(rows: Sequence[Bar], title: str, *, bound: float | None = None) -> Markup:
    """One bar per row below its name and note; `bound` is a dashed line across each of them."""
    values = [v for row in rows for v in (row.value, row.mark) if v is not None]
    top = max([*values, bound or 0.0, 1e-30])
    parts = []
    for i, row in enumerate(rows):
        y = i * _ROW
        parts += [
            _text(0, y + 13, row.name, css="name", room=_WIDTH - _LETTER * len(row.note) - 8),
            _text(_WIDTH, y + 13, row.note, "end"),
            f'<rect class="track" x="0" y="{y + 18}" width="{_WIDTH}" height="8"/>',
        ]
        if row.value:
            length = max(row.value / top * _WIDTH, 1.0)
            parts.append(f'<rect class="bar" y="{y + 18}" width="{length:.1f}" height="8"/>')
        if row.mark is not None:
            x = min(row.mark / top, 1.0) * (_WIDTH - 3)
            parts.append(f'<rect class="tick" x="{x:.1f}" y="{y + 15}" width="3" height="14"/>')
        if bound is not None:
            x = bound / top * (_WIDTH - 2) + 1
            parts.append(_line("bound", x, y + 15, x, y + 29))
    height = _ROW * len(rows)
    words = "; ".join(f"{row.name} {row.note}" for row in rows)
    return _figure(title, words, parts, height)


def spreads(rows: Sequence[Spread], unit: str, title: str, *, bound: float | None = None) -> Markup:
    """Median (dot), 95th percentile (thick), 99th (tick) and largest (thin) on a log scale."""
    known = [v for row in rows for v in (row.p50, row.largest) if v > 0] + [bound or 0.0]
    scale = _LogScale.around([value for value in known if value > 0], 0, _WIDTH - 4)
    parts: list[str] = []
    for i, row in enumerate(rows):
        y = i * _ROW + 22
        parts += [_line("grid", scale(v), y - 7, scale(v), y + 7) for v in scale.decades()]
        p50, p95, p99, largest = (scale(v) for v in (row.p50, row.p95, row.p99, row.largest))
        parts += [
            _text(0, y - 9, row.name, css="name"),
            _text(_WIDTH, y - 9, f"p99 {row.p99:.2g}, max {row.largest:.2g}", "end"),
            _line("thin", p50, y, largest, y),
            f'<rect class="bar" x="{p50:.1f}" y="{y - 3}" width="{max(p95 - p50, 1):.1f}" '
            'height="6"/>',
            f'<rect class="tick" x="{p99 - 1:.1f}" y="{y - 6}" width="3" height="12"/>',
            f'<circle class="dot" cx="{p50:.1f}" cy="{y}" r="4"/>',
        ]
        if bound is not None:
            parts.append(_line("bound", scale(bound), y - 7, scale(bound), y + 8))
    bottom = _ROW * len(rows)
    parts += _decade_labels(scale, bottom + 14)
    words = "; ".join(f"{r.name} median {r.p50:.2g}, p99 {r.p99:.2g} {unit}" for r in rows)
    return _figure(title, words, parts, bottom + 20)


def curves(series: Mapping[str, Sequence[float]], unit: str, title: str) -> Markup:
    """One line per series over the steps 1, 2, …, named at its end; values on a log scale.

    The series come in the order in which they end, the largest first.
    """
    positive = [value for values in series.values() for value in values if value > 0]
    scale = _LogScale.around(positive, _FLOOR, _CEILING)
    count = max(map(len, series.values()))
    right = _RIGHT - 34
    places = [_LEFT + i * (right - _LEFT) / max(count - 1, 1) for i in range(count)]
    parts = [_line("grid", _LEFT, scale(v), right, scale(v)) for v in scale.decades()]
    parts += [_text(_LEFT - 5, scale(v) + 4, f"{v:.0e}", "end") for v in scale.decades()]
    name_y = -math.inf
    for number, (name, values) in enumerate(series.items()):
        points = [(x, scale(v)) for x, v in zip(places, values, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="curve c{number}" points="{path}"/>')
        parts += [
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"><title>{escape(name)}, step '
            f"{i + 1}: {value:.3g} {escape(unit)}</title></circle>"
            for i, ((x, y), value) in enumerate(zip(points, values, strict=True))
        ]
        name_y = max(points[-1][1] + 4, name_y + _LINE)
        parts.append(_text(right + 6, name_y, name))
    shown = [0, count - 1] if count > 1 else [0]
    parts += [_text(places[i], _FLOOR + 14, str(i + 1), "middle") for i in shown]
    parts.append(_text((_LEFT + right) / 2, _FLOOR + 14, f"denoising step; {unit}", "middle"))
    words = "; ".join(f"{name}: {', '.join(f'{v:.2g}' for v in vs)}" for name, vs in series.items())
    return _figure(title, f"{words} {unit}", parts, int(_FLOOR) + 20)


def heatmap(rows: Sequence[Sequence[int]], title: str) -> Markup:
    """Counts as shades on a logarithmic scale, reference down and candidate across."""
    counts = np.asarray(rows, float)
    shades = np.log1p(counts) / max(float(np.log1p(counts).max()), 1e-9)
    left, top, bins = 24, 18, len(counts)
    cell = min(22.0, (_WIDTH - left) / bins)
    side, gap = cell * bins, 1 if bins <= _NUMBERED_BINS else 0
    parts = [
        f'<rect class="track" x="{left}" y="{top}" width="{side:.1f}" height="{side:.1f}"/>',
        _text(left, 12, f"release's bin, 0 to {bins - 1} →"),
    ]
    if bins <= _NUMBERED_BINS:
        parts += [_text(left - 6, top + (i + 0.7) * cell, str(i), "end") for i in range(bins)]
    parts += [
        f'<rect class="{"cell" if i == j else "cell off"}" x="{left + j * cell:.1f}" '
        f'y="{top + i * cell:.1f}" width="{cell - gap:.1f}" height="{cell - gap:.1f}" '
        f'fill-opacity="{0.15 + 0.85 * shades[i, j]:.3f}">'
        f"<title>bin {i} → {j}: {counts[i, j]:g}</title></rect>"
        for i, j in np.argwhere(counts > 0)
    ]
    equal, every = float(np.trace(counts)), float(counts.sum())
    return _figure(title, f"{equal:g} of {every:g} equal", parts, int(top + side) + 4)


@dataclass(frozen=True)
class _LogScale:
    """Values between two powers of ten to places between `begin` and `end`."""

    low: int
    high: int
    begin: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], begin: float, end: float) -> _LogScale:
        low = math.floor(math.log10(min(values, default=1.0)))
        high = math.ceil(math.log10(max(values, default=1.0)))
        # Beyond twelve decades there is nothing to see but rounding.
        return cls(max(low, high - 12), max(high, low + 1), begin, end)

    def __call__(self, value: float) -> float:
        share = 0.0
        if value > 0:
            share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.begin + min(max(share, 0.0), 1.0) * (self.end - self.begin)

    def decades(self) -> list[float]:
        step = max(1, (self.high - self.low) // 4)
        return [10.0**power for power in range(self.low, self.high + 1, step)]


def _decade_labels(scale: _LogScale, y: float) -> list[str]:
    decades = scale.decades()
    anchors = ["start", *["middle"] * (len(decades) - 2), "end"]
    return [_text(scale(v), y, f"{v:.0e}", a) for v, a in zip(decades, anchors, strict=True)]


def _up(share: float) -> float:
    return _FLOOR - share * (_FLOOR - _CEILING)


def _axis() -> str:
    return _line("axis", _LEFT, _FLOOR, _RIGHT, _FLOOR)


def _line(css: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(
    x: float, y: float, words: str, anchor: str = "start", css: str = "", room: float = _WIDTH
) -> str:
    kind = f' class="{css}"' if css else ""
    # Too long a name is drawn narrower, never cut.
    if _LETTER * len(words) > room:
        kind += f' textLength="{room:.0f}" lengthAdjust="spacingAndGlyphs"'
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _figure(title: str, words: str, parts: Sequence[str], height: int = _HEIGHT) -> Markup:
    """The drawing, with the words that say the same to who does not see it."""
    return Markup(
        f'<figure><figcaption>{escape(title)}</figcaption><svg role="img" '
        f'aria-label="{escape(f"{title}: {words}")}" viewBox="0 0 {_WIDTH} {height}">'
        f"{''.join(parts)}</svg></figure>"
    )
