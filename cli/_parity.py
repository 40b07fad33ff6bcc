"""The parity table that `compile` and `verify` print."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from libra_edge.limits import ChangedLimit
from libra_edge.parity.gates import Check

from ._render import Output

_COLUMNS = {
    "tokens equal": "tokens equal",
    "margin error": "margin error",
    "action error / range": "action error",
    "p99 action error / range": "p99 action error",
}


def parity_table(output: Output, checks: Sequence[Check]) -> None:
    """One row per stage, then a line for each check that did not pass."""
    shown = [name for name in _COLUMNS if any(check.metric == name for check in checks)]
    rows = [_row(stage, list(group), shown) for stage, group in groupby(checks, lambda c: c.stage)]
    output.table(("parity", *(_COLUMNS[name] for name in shown), "N", "verdict"), rows)
    gates: dict[str, float] = {}
    for check in (check for check in checks if check.metric in _COLUMNS):
        # The recipe's come first; those of odd inputs are wider.
        gates.setdefault(check.metric, check.threshold)
    if gates:
        limits = ", ".join(f"{_COLUMNS[name]} {gate:g}" for name, gate in gates.items())
        output.text(f"gates: {limits} (actions: fraction of each dimension's range)")
    for check in checks:
        if check.verdict != "pass":
            output.text(f"{check.verdict}: {check.stage}: {_words(check)}")
    output.text("")


def gate_changes(output: Output, changes: Sequence[ChangedLimit], where: str) -> None:
    """One line per limit that is not the recipe's; loose ones in red."""
    for change in changes:
        (output.warn if change.loose else output.text)(f"gate {where}: {change}")


def _row(stage: str, checks: Sequence[Check], shown: Sequence[str]) -> tuple[object, ...]:
    values = {check.metric: check.value for check in checks}
    verdicts = {check.verdict for check in checks}
    worst = next(v for v in ("fail", "not measured", "pass") if v in verdicts)
    cells = (f"{values[name]:.3g}" if name in values else "–" for name in shown)
    return (stage, *cells, max(check.samples for check in checks), worst)


def _words(check: Check) -> str:
    if check.verdict == "not measured":
        return check.note
    note = f" ({check.note})" if check.note else ""
    return f"{check.metric} is {check.value:.4g}, gate {check.threshold:g}{note}"
