"""The robot's description beside a dataset: `meta/libra_edge.json`, or a file of the user's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from libra_edge.data.lerobot.files import read_json
from libra_edge.errors import InputError, did_you_mean
from libra_edge.models import Strict
from libra_edge.paths import StrPath
from libra_edge.policy.config import ActionDim, Embodiment, StateDim

# What a draft writes where only a person can tell.
UNKNOWN = "?"
_CODE = "robot-description-invalid"


class RobotFile(Strict):
    """What the file holds.

    Attributes:
        embodiment: the robot.
        guessed: dotted keys that a draft filled in by guessing; a person deletes what is right.
        recipe: how the data came about, where Libra Edge recorded it.
    """

    embodiment: Embodiment
    guessed: tuple[str, ...] = ()
    recipe: dict[str, Any] = Field(default_factory=dict)


def read_robot(path: StrPath) -> RobotFile:
    """Read a robot's description.

    Raises:
        InputError: the file is missing or not JSON; a key is missing, unknown or has no valid
            value, with the key's name; a draft's question mark is still in it.
    """
    path = Path(path)
    content = read_json(path)
    if "embodiment" not in content:
        bare = "actions" in content and "cameras" in content
        raise InputError(
            _CODE,
            f"{path} has no key 'embodiment'"
            + ("; the robot's keys stand at the top level." if bare else "."),
            'Put the robot\'s keys inside: {"embodiment": {…}}.'
            if bare
            else "Draft a description with `libra-edge dataset describe`.",
        )
    try:
        robot = RobotFile.model_validate(content)
    except ValidationError as caught:
        raise _explained(path, content, caught) from None
    units = {
        "state": [dim.unit for dim in robot.embodiment.state],
        "actions": [dim.unit for dim in robot.embodiment.actions],
    }
    unfinished = [
        f"embodiment.{group}.{i}.unit"
        for group, given in units.items()
        for i, unit in enumerate(given)
        if unit.strip() in ("", UNKNOWN)
    ]
    if unfinished:
        raise InputError(
            "robot-description-unfinished",
            f"{path}: {unfinished[0]} is not filled in ({len(unfinished)} keys like it).",
            'Write the unit, for example "deg", "rad", "m" or "1" for a number without one.',
        )
    return robot


def write_robot(robot: RobotFile) -> str:
    """The file's text: indented JSON, the guesses after what they are about."""
    body: dict[str, Any] = {"embodiment": robot.embodiment.model_dump(mode="json")}
    body |= {"guessed": list(robot.guessed)} if robot.guessed else {}
    body |= {"recipe": robot.recipe} if robot.recipe else {}
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


def _explained(path: Path, content: dict[str, Any], caught: ValidationError) -> InputError:
    first = caught.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "the top level"
    owner = _owner(content, first["loc"])
    where = f" (of {owner!r})" if owner else ""
    more = caught.error_count() - 1
    others = f"; {more} more like it" if more else ""
    if first["type"] == "missing":
        fact, remedy = f"the key {key} is missing{where}{others}.", "Add the key."
    elif first["type"] == "extra_forbidden":
        fact = f"unknown key {key}{where}{others}."
        remedy = did_you_mean(str(first["loc"][-1]), _keys_at(first["loc"]))
    else:
        words = first["msg"].removeprefix("Value error, ")
        fact, remedy = f"{key}{where}: {words}{others}.", "Correct the value."
    return InputError(
        _CODE, f"{path}: {fact}", f"{remedy} docs/reference/config.md lists every key."
    )


def _owner(content: Any, place: tuple[int | str, ...]) -> str | None:
    """The name of the dimension a key belongs to."""
    for part in place[:-1]:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            return None
    name = content.get("name") if isinstance(content, dict) else None
    return name if isinstance(name, str) else None


def _keys_at(place: tuple[int | str, ...]) -> list[str]:
    if len(place) == 1:
        return list(RobotFile.model_fields)
    models: dict[str, type[Strict]] = {"state": StateDim, "actions": ActionDim}
    inner = models.get(str(place[1])) if len(place) > 3 else None
    return list((inner or Embodiment).model_fields)
