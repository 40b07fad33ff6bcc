"""What an examination found, as the commands that read a dataset show it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from libra_edge.data.findings import DatasetDoubt, Finding
from libra_edge.errors import InputError

from ._render import say

Strict = Annotated[
    bool, typer.Option("--strict", help="Doubts about a dataset are errors, not warnings.")
]


def say_finding(finding: Finding) -> None:
    """Two lines of narration: what was found, and what to do about it."""
    word = {"error": "error", "doubt": "warning", "note": "note"}[finding.level]
    say(f"{word}[{finding.code}]: {finding.fact}")
    if finding.level != "note":
        say(f"  remedy: {finding.remedy}")


def say_findings(findings: Iterable[Finding], but: Finding | None = None) -> None:
    """All of them, the gravest last, but one that the command will end with as its error."""
    order = {"note": 0, "doubt": 1, "error": 2}
    for finding in sorted(findings, key=lambda finding: order[finding.level]):
        if finding is not but:
            say_finding(finding)


@contextmanager
def doubts_shown(*, strict: bool) -> Iterator[list[dict[str, Any]]]:
    """Around what reads datasets: doubts are said once each, or stop under `strict`.

    Yields:
        The doubts so far, as JSON.

    Raises:
        InputError: the first doubt, under `strict`.
    """
    shown: list[dict[str, Any]] = []
    plain = warnings.showwarning

    def show(message: Any, *rest: Any, **more: Any) -> None:
        if isinstance(message, DatasetDoubt):
            finding = message.finding
            if strict:
                raise InputError(finding.code, finding.fact, finding.remedy)
            if finding.to_json() not in shown:
                shown.append(finding.to_json())
        plain(message, *rest, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DatasetDoubt)
        warnings.showwarning = show
        yield shown
