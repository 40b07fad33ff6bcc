"""`libra-edge dataset`: check a LeRobot dataset before it is used, or describe its robot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from libra_edge.atomic import new_file
from libra_edge.data.extras import needs_extra
from libra_edge.errors import ExitCode, InputError

from ._dataset import Strict, say_findings
from ._options import Json
from ._render import Output

_HELP = {"help_option_names": ["-h", "--help"]}
dataset = typer.Typer(
    name="dataset",
    help="Check a LeRobot dataset before it is used, or describe its robot.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings=_HELP,
)
_Folder = Annotated[
    Path, typer.Argument(help="LeRobot dataset folder.", metavar="PATH", show_default=False)
]


@dataset.command(context_settings=_HELP)
def check(
    path: _Folder,
    robot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Description of the robot.",
            show_default="the dataset's meta/libra_edge.json",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Training recipe that it is meant for.",
            show_default="a recipe of defaults",
        ),
    ] = None,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Examine a dataset as `train`, `compile`, `verify` and `simulate --replay` do.

    Exit code 2 where one of them would stop: at an error, under --strict also at a doubt.
    """
    with needs_extra("train", "Reading a dataset"):
        from libra_edge.data.examine import examine
        from libra_edge.training.config import TrainingRecipe, read_training_recipe
        from libra_edge.training.expect import expectation

    output = Output("dataset check", json)
    chosen = read_training_recipe(recipe) if recipe else TrainingRecipe()
    found = examine(path, expectation(chosen, robot))
    say_findings(found.findings)
    errors, doubts, notes = (found.count(level) for level in ("error", "doubt", "note"))
    stops = errors or (strict and doubts)
    given = () if robot is None else ("--robot", robot)
    follow = ("train", path, *given, "--out", "runs/first")
    output.finish(
        found.to_json() | {"strict": strict},
        f"{path}: {errors} errors, {doubts} warnings, {notes} notes",
        exit_code=ExitCode.USAGE if stops else ExitCode.OK,
        next_command=None if stops or found.robot is None else follow,
    )


@dataset.command(context_settings=_HELP)
def describe(
    path: _Folder,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Where to write.",
            show_default="PATH/meta/libra_edge.json",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a description there.")] = False,
    json: Json = False,
) -> None:
    """Draft the description of a dataset's robot, for a person to correct.

    Units, kinds and limits are guesses, and listed as such in the file: correct them and delete the
    list. A "?" has to be replaced before anything is trained.
    """
    with needs_extra("train", "Reading a dataset"):
        from libra_edge.data.describe import draft_robot
        from libra_edge.data.lerobot.robot import UNKNOWN, write_robot
        from libra_edge.data.lerobot_writer import EXTRA_PATH

    output = Output("dataset describe", json)
    place = path / EXTRA_PATH if out is None else out
    if place.exists() and not force:
        raise InputError(
            "output-exists",
            f"{place} exists already.",
            "Correct it, add --force to replace it, or name another file with --out.",
        )
    draft = draft_robot(path)
    with new_file(place) as stream:
        stream.write(write_robot(draft.file).encode())
    robot = draft.file.embodiment
    output.facts(
        robot.name,
        {
            "cameras": ", ".join(robot.cameras),
            "images": f"{robot.image_height} x {robot.image_width}",
            "rate": f"{robot.control_hz:g} Hz",
        },
    )
    output.table(
        ("feature", "name", "unit", "kind", "limits", "data"),
        [
            (
                dim.feature.removeprefix("observation."),
                dim.name,
                dim.unit,
                dim.kind or "",
                "" if dim.limits is None else f"{dim.limits[0]:g} to {dim.limits[1]:g}",
                f"{dim.data[0]:.4g} to {dim.data[1]:.4g}",
            )
            for dim in draft.dimensions
        ],
    )
    unknown = sum(dim.unit == UNKNOWN for dim in draft.dimensions)
    given = [] if out is None else ["--robot", str(out)]
    output.finish(
        {
            "path": str(place),
            "embodiment": robot.model_dump(mode="json"),
            "guessed": list(draft.file.guessed),
            "unknown": unknown,
        },
        f"drafted {place}: {len(draft.file.guessed)} guesses to confirm, {unknown} units to fill "
        "there first",
        next_command=("dataset", "check", path, *given),
    )
