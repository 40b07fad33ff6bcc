"""The limits of the gates. A recipe's file ships the defaults; a release may tighten them freely.

Loosening one is refused unless it is asked for by name, and then it is recorded and shown.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from libra_edge.errors import InputError, did_you_mean
from libra_edge.paths import StrPath

Share = Annotated[float, Field(gt=0, le=1)]
_LARGER_IS_STRICTER = frozenset({"tokens", "action_percentile"})


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Limits(_Facts):
    """What every compiled stage has to pass.

    tokens: smallest fraction of equal intent tokens; margin: largest error of a margin in logits,
    or None; margin_percentile: or None. Tokens may differ only where the reference's margin is
    below `margin` and below this percentile of its margins. action: largest error of
    `action_percentile` percent of the action values, as a fraction of the dimension's range.
    """

    tokens: Share
    action: Share
    action_percentile: Literal[99, 100] = 100
    margin: Annotated[float, Field(gt=0)] | None = None
    margin_percentile: Annotated[float, Field(gt=0, le=100)] | None = None

    @model_validator(mode="after")
    def _margins_are_bounded(self) -> Limits:
        if self.margin is None and self.margin_percentile is None:
            raise ValueError("margin or margin_percentile must be given")
        return self


class ChangedLimit(_Facts):
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
