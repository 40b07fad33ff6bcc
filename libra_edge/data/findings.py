"""What an examination finds: errors that stop, doubts that warn, notes that only say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from libra_edge.errors import InputError, LibraWarning

Level = Literal["error", "doubt", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, doubtful or worth saying about a dataset.

    Attributes:
        level: an error stops; a doubt warns, and stops under `--strict`; a note does neither.
        code: stable identifier, as of an error.
        fact: what was found, with names and values.
        remedy: what to do about it.
        feature: LeRobot's name of the feature, where there is one.
        dimension: number of the dimension in that feature.
        episode: number of the episode.
        frame: number of the frame in that episode.
    """

    level: Level
    code: str
    fact: str
    remedy: str
    feature: str | None = None
    dimension: int | None = None
    episode: int | None = None
    frame: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Every attribute; None where the finding is about no particular place."""
        return asdict(self)

    def raise_(self) -> None:
        """Raise it as the error it is, or that strictness makes of it.

        Raises:
            InputError: always.
        """
        raise InputError(self.code, self.fact, self.remedy)


class DatasetDoubt(LibraWarning):
    """The warning for a finding that does not stop; `--strict` makes it an error."""

    finding: Finding

    @classmethod
    def of(cls, finding: Finding) -> DatasetDoubt:
        """The warning of a finding."""
        warning = cls(finding.code, finding.fact, finding.remedy)
        warning.finding = finding
        return warning


def error(code: str, fact: str, remedy: str, **where: Any) -> Finding:
    """A finding that stops."""
    return Finding("error", code, fact, remedy, **where)


def doubt(code: str, fact: str, remedy: str, **where: Any) -> Finding:
    """A finding that warns."""
    return Finding("doubt", code, fact, remedy, **where)


def note(code: str, fact: str, remedy: str, **where: Any) -> Finding:
    """A finding that only says what was done."""
    return Finding("note", code, fact, remedy, **where)


def from_error(caught: InputError, **where: Any) -> Finding:
    """The finding that an error on the way amounts to."""
    return Finding("error", caught.code, caught.fact, caught.remedy, **where)


def stopping(findings: Iterable[Finding], *, strict: bool = False) -> Sequence[Finding]:
    """Those that stop: errors, and under `strict` doubts after them."""
    levels: tuple[Level, ...] = ("error", "doubt") if strict else ("error",)
    found = list(findings)
    return [finding for level in levels for finding in found if finding.level == level]


def require(findings: Iterable[Finding], *, strict: bool = False) -> None:
    """Raise the first finding that stops.

    Raises:
        InputError: there is one.
    """
    for finding in stopping(findings, strict=strict):
        finding.raise_()
