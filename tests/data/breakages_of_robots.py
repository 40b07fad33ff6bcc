"""Faults of the robot's description, of values against it, and of instructions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.data.breaking import Random, Wanted, breakage, camera, place
from tests.data.generated import (
    ACTION,
    FPS,
    STATE,
    Recipe,
    edit_cell,
    edit_columns,
    edit_robot,
    edit_rows,
)


@breakage
def a_dimension_too_few(path: Path, recipe: Recipe, random: Random) -> Wanted:
    group, key = (("state", STATE), ("actions", ACTION))[int(random.integers(2))]
    edit_robot(path, lambda robot: robot[group].pop(int(random.integers(len(robot[group])))))
    return Wanted("dataset-mismatch", "error", key)


@breakage
def dimensions_in_another_order(path: Path, recipe: Recipe, random: Random) -> Wanted:
    group, key = (("state", STATE), ("actions", ACTION))[int(random.integers(2))]
    count = recipe.states if key == STATE else recipe.actions
    a, b = sorted(int(i) for i in random.choice(count, 2, replace=False))

    def swap(robot: dict[str, Any]) -> None:
        robot[group][a], robot[group][b] = robot[group][b], robot[group][a]

    edit_robot(path, swap)
    return Wanted("dataset-mismatch", "error", key, a)


@breakage
def cameras_in_another_order(path: Path, recipe: Recipe, random: Random) -> Wanted:
    edit_robot(path, lambda robot: robot["cameras"].reverse())
    return Wanted("dataset-mismatch")


@breakage
def a_camera_nobody_has(path: Path, recipe: Recipe, random: Random) -> Wanted:
    at = int(random.integers(len(recipe.cameras)))
    edit_robot(path, lambda robot: robot["cameras"].__setitem__(at, "elsewhere"))
    return Wanted("dataset-mismatch")


@breakage
def a_camera_left_out(path: Path, recipe: Recipe, random: Random) -> Wanted:
    name = camera(recipe, random)
    edit_robot(path, lambda robot: robot["cameras"].remove(name))
    return Wanted("dataset-camera-left-out", "doubt", f"observation.images.{name}")


@breakage
def the_rate_of_another_robot(path: Path, recipe: Recipe, random: Random) -> Wanted:
    edit_robot(path, lambda robot: robot.update(control_hz=FPS + int(random.integers(1, 30))))
    return Wanted("dataset-mismatch")


@breakage
def a_key_missing(path: Path, recipe: Recipe, random: Random) -> Wanted:
    def drop(robot: dict[str, Any]) -> None:
        owners = [robot, robot["state"][0], robot["actions"][-1]]
        owner = owners[int(random.integers(3))]
        del owner[str(random.choice(sorted(owner)))]

    edit_robot(path, drop)
    return Wanted("robot-description-invalid")


@breakage
def a_key_misspelt(path: Path, recipe: Recipe, random: Random) -> Wanted:
    def misspell(robot: dict[str, Any]) -> None:
        dim = robot["actions"][int(random.integers(len(robot["actions"])))]
        dim["uper"] = dim.pop("upper")

    edit_robot(path, misspell)
    return Wanted("robot-description-invalid")


@breakage
def limits_the_wrong_way_round(path: Path, recipe: Recipe, random: Random) -> Wanted:
    edit_robot(path, lambda robot: robot["actions"][0].update(lower=3.0, upper=-3.0))
    return Wanted("robot-description-invalid")


@breakage
def no_embodiment_key(path: Path, recipe: Recipe, random: Random) -> Wanted:
    file = path / "meta/libra_edge.json"
    file.write_text(json.dumps(json.loads(file.read_text())["embodiment"]))
    return Wanted("robot-description-invalid")


@breakage
def no_description(path: Path, recipe: Recipe, random: Random) -> Wanted:
    (path / "meta/libra_edge.json").unlink()
    return Wanted("embodiment-missing")


@breakage
def a_unit_left_open(path: Path, recipe: Recipe, random: Random) -> Wanted:
    edit_robot(path, lambda robot: robot["state"][-1].update(unit=str(random.choice(["?", ""]))))
    return Wanted("robot-description-unfinished")


@breakage
def degrees_in_radians(path: Path, recipe: Recipe, random: Random) -> Wanted:
    dim = int(random.integers(recipe.actions))
    factor = np.ones(recipe.actions)
    factor[dim] = 57.29578
    edit_columns(path, ACTION, lambda rows: rows * factor)
    return Wanted("dataset-unit", "error", ACTION, dim)


@breakage
def values_outside_the_limits(path: Path, recipe: Recipe, random: Random) -> Wanted:
    dim, (episode, frame) = int(random.integers(recipe.actions)), place(recipe, random)
    edit_cell(path, ACTION, episode, frame, lambda v: [*v[:dim], 3.5, *v[dim + 1 :]])
    return Wanted("dataset-outside-limits", "doubt", ACTION, dim, episode, frame)


@breakage
def limits_of_another_robot(path: Path, recipe: Recipe, random: Random) -> Wanted:
    dim = int(random.integers(recipe.actions))
    edit_robot(path, lambda robot: robot["actions"][dim].update(lower=2.9, upper=4.0))
    return Wanted("dataset-outside-limits", "error", ACTION, dim)


@breakage
def an_empty_instruction(path: Path, recipe: Recipe, random: Random) -> Wanted:
    number = int(random.integers(len(recipe.words)))
    text = str(random.choice(["", " ", "\t\n"]))
    edit_rows(path / "meta/tasks.parquet", lambda rows: rows[number].update(task=text))
    return Wanted("dataset-instruction-empty", "error", "task_index", None, number, 0)


@breakage
def a_long_instruction(path: Path, recipe: Recipe, random: Random) -> Wanted:
    number = int(random.integers(len(recipe.words)))
    text = " ".join(["again"] * int(random.integers(13, 200)))
    edit_rows(path / "meta/tasks.parquet", lambda rows: rows[number].update(task=text))
    return Wanted("dataset-instruction-too-long", "error", "task_index", None, number, 0)


@breakage
def an_instruction_nobody_wrote(path: Path, recipe: Recipe, random: Random) -> Wanted:
    episode, frame = place(recipe, random)
    edit_cell(path, "task_index", episode, frame, lambda _: 77)
    return Wanted("dataset-task-unknown")
