"""How a claim is held against what was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from libra_edge.limits import Verdict
from libra_edge.parity.gates import Check

STAGE = "claims of the manifest"
_MOST_WORDS = 6


@dataclass
class Claims:
    """checks: claims that were recomputed; unchecked: claims that nobody could, in words."""

    checks: list[Check] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def held(self, what: str, claimed: Any, found: Any, who: str = "the graphs say") -> None:
        """One claim; a failed one names every value that differs."""
        lines = differences(claimed, found)
        self.judge(what, not lines, differing(lines, who))

    def judge(self, what: str, passed: bool, otherwise: str) -> None:
        """One claim with a sentence of its own."""
        self.checks.append(claim(what, passed, otherwise))

    def leave(self, what: str) -> None:
        """A claim that is shown and no more."""
        self.unchecked.append(what)


def claim(metric: str, passed: bool, otherwise: str, stage: str = STAGE) -> Check:
    """A check that is either so or not."""
    verdict: Verdict = "pass" if passed else "fail"
    return Check(stage, metric, float(passed), 1.0, 1, verdict, "" if passed else otherwise)


def differing(lines: list[tuple[str, Any, Any]], who: str) -> str:
    """Every differing value by its name, with both values."""
    some = [
        f"{name + ' ' if name else ''}is {_shown(a)} in the manifest, {who} {_shown(b)}"
        for name, a, b in lines[:_MOST_WORDS]
    ]
    more = f"; and {len(lines) - _MOST_WORDS} more" if len(lines) > _MOST_WORDS else ""
    return "; ".join(some) + more


def differences(claimed: Any, found: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Where two plain values differ: name, claimed, found; items of lists by name or number."""
    if isinstance(claimed, dict) and isinstance(found, dict):
        keys = [*claimed, *(key for key in found if key not in claimed)]
        return [
            line
            for key in keys
            for line in differences(claimed.get(key), found.get(key), _path(name, str(key)))
        ]
    if isinstance(claimed, list | tuple) and isinstance(found, list | tuple):
        if len(claimed) != len(found):
            return [(f"number of {name}", len(claimed), len(found))]
        return [
            line
            for i, (a, b) in enumerate(zip(claimed, found, strict=True))
            for line in differences(a, b, f"{name}[{_item(b, i)}]")
        ]
    same = claimed == found and type(claimed) is type(found)
    return [] if same else [(name, claimed, found)]


def _item(value: Any, number: int) -> str:
    return str(value.get("name", number)) if isinstance(value, dict) else str(number)


def _path(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _shown(value: Any) -> str:
    return "absent" if value is None else repr(value) if isinstance(value, str) else f"{value}"
