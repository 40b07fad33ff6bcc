"""Options that several commands share, so that they read and behave the same."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace another release that stands there.")]
OutputPath = Annotated[
    Path | None, typer.Option("--out", "-o", show_default=False, help="Where to write.")
]
GatesFile = Annotated[
    Path | None,
    typer.Option(
        "--gates",
        metavar="FILE",
        help="TOML file of limits, stricter than the recipe's.",
        show_default="the recipe's",
    ),
]
AllowLoose = Annotated[
    bool, typer.Option("--allow-loose", help="Take looser gates too; recorded and shown in red.")
]
Robot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Description of the robot, for a LeRobot policy: limits, kinds, units, rate.",
        show_default="--data's",
    ),
]
TokenizerFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="tokenizer.json, where a LeRobot policy only names it.",
        show_default="none",
    ),
]
VlmConfig = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Configuration of the vision-language model, likewise.",
        show_default="none",
    ),
]


Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Run on a Ray cluster; `local` starts one here.",
        show_default="this machine's processes",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", "-j", min=1, help="Processes; on Ray, actors.", show_default="1; on Ray, all"
    ),
]


def given_words(context: typer.Context, but: Collection[str]) -> list[str]:
    """The options of a command as they were given, to hand them on to another process.

    Args:
        context: of the command.
        but: names of parameters that are not handed on.
    """
    words: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.name in but or value is None or value is False:
            continue
        option = max(parameter.opts, key=len)
        words += [option] if value is True else [option, str(value)]
    return words
