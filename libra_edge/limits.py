"""The limits of the gates. A recipe's file ships the defaults; a release may tighten them freely.

Loosening one is refused unless it is asked for by name, and then it is recorded and shown.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from libra_edge.errors import InputError, did_you_mean
from libra_edge.models import Strict
from libra_edge.paths import StrPath

Verdict = Literal["pass", "fail", "not measured"]
Share = Annotated[float, Field(gt=0, le=1)]
_LARGER_IS_STRICTER = frozenset({"tokens", "action_percentile"})


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict for many: a failure counts before a gap, a gap before success; none is a gap."""
    ranked: tuple[Verdict, ...] = ("fail", "not measured", "pass")
    return min(verdicts, key=ranked.index, default="not measured")


class Limits(Strict, strict=True, use_attribute_docstrings=True):
    """What every compiled stage has to pass; a margin is the top-1 minus top-2 logit of a token.

    `margin` or `margin_percentile` must be given, or both: tokens may differ only where the
    reference was undecided.
    """

    tokens: Share
    """Smallest share of equal intent tokens."""
    action: Share
    """Largest action error, as a share of the dimension's range."""
    action_percentile: Literal[99, 100] = 100
    """The percentage of the action values that `action` is for. The default allows no exception;
    recipes that round allow one value in a hundred."""
    margin: Annotated[float, Field(gt=0)] | None = None
    """Every margin's error, and every margin at which tokens differ, must be below it, in logits.
    None where rounding is meant: it moves margins by design."""
    margin_percentile: Annotated[float, Field(gt=0, le=100)] | None = None
    """Tokens may differ only at margins below this percentile of the reference's. None leaves them
    to `margin`."""

    @model_validator(mode="after")
    def _margins_are_bounded(self) -> Limits:
        if self.margin is None and self.margin_percentile is None:
            raise ValueError("margin or margin_percentile must be given")
        return self


class ChangedLimit(Strict, strict=True):
    """A limit that is not the recipe's; `default` is None where the recipe has none."""

    name: str
    limit: float
    default: float | None
    loose: bool

    def __str__(self) -> str:
        word = "LOOSE" if self.loose else "stricter"
        default = "none" if self.default is None else f"{self.default:g}"
        return f"{self.name} {self.limit:g}, the recipe's is {default} ({word})"


@dataclass(frozen=True)
class Gates:
    """The limits in force, and which of them are not the recipe's."""

    limits: Limits
    changes: tuple[ChangedLimit, ...] = ()

    @property
    def loose(self) -> tuple[ChangedLimit, ...]:
        """The limits that are looser than the recipe's."""
        return tuple(change for change in self.changes if change.loose)


def gates_between(default: Limits, wanted: Limits) -> Gates:
    """`wanted`, and how it differs from the recipe's limits."""
    changes = []
    for name in Limits.model_fields:
        before, after = getattr(default, name), getattr(wanted, name)
        if before == after or after is None:
            continue
        # A limit where the recipe has none only adds a bound.
        loose = before is not None and (after > before) != (name in _LARGER_IS_STRICTER)
        changes.append(ChangedLimit(name=name, limit=after, default=before, loose=loose))
    return Gates(wanted, tuple(changes))


def read_gates(path: StrPath | None, default: Limits, *, allow_loose: bool = False) -> Gates:
    """The recipe's limits with those of a TOML file's `gates` table in their place.

    Args:
        path: the file; None takes the recipe's limits as they are.
        default: the recipe's.
        allow_loose: take limits that are looser than the recipe's.

    Raises:
        InputError: the file cannot be read, holds an unknown key or a value that is no limit, or
            loosens one without leave.
    """
    path = None if path is None else Path(path)
    if path is None:
        return Gates(default)
    asked = _gates_table(path)
    if unknown := sorted(asked.keys() - Limits.model_fields.keys()):
        raise _invalid(
            path, f"unknown limit {unknown[0]!r}", did_you_mean(unknown[0], Limits.model_fields)
        )
    try:
        wanted = Limits.model_validate({**default.model_dump(), **asked})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "gates"
        raise _invalid(path, f"{where}: {first['msg']}") from None
    gates = gates_between(default, wanted)
    if gates.loose and not allow_loose:
        raise InputError(
            "gates-loose",
            f"{path} loosens a gate: {gates.loose[0]}.",
            "Correct the file, or add --allow-loose: it is recorded and shown in red.",
        )
    return gates


def _gates_table(path: Path) -> dict[str, object]:
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "gates-unreadable", f"{path} cannot be read: {error}.", "Name a TOML file of gates."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise _invalid(path, f"it is not TOML: {error}") from None
    if unknown := sorted(body.keys() - {"gates"}):
        raise _invalid(path, f"unknown key {unknown[0]!r}", "Limits stand in its [gates] table.")
    table = body.get("gates")
    if not isinstance(table, dict) or not table:
        raise _invalid(path, "it has no [gates] table with limits")
    return table


def _invalid(path: Path, fact: str, remedy: str = "Correct the file.") -> InputError:
    return InputError("gates-invalid", f"{path} holds no gates: {fact}.", remedy)
