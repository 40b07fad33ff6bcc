"""A draft of a robot's description: what the dataset says, guesses marked, errors by key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libra_edge.data.describe import draft_robot
from libra_edge.data.examine import Expectation, examine
from libra_edge.data.lerobot.robot import UNKNOWN, read_robot, write_robot
from libra_edge.errors import InputError
from tests.data.generated import ACTION, STATE, Recipe, edit_columns, edit_info, write

BASE = Path(__file__).parent / "cases/base"


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    """As LeRobot wrote it: no description of the robot."""
    path = Path(shutil.copytree(BASE, tmp_path / "stock"))
    (path / "meta/libra_edge.json").unlink()
    return path


def named(path: Path, names: list[str], rows: np.ndarray[Any, Any]) -> Path:
    """A dataset whose states and actions have these names and values [T, dims]."""
    recipe = Recipe(lengths=(len(rows),), states=len(names), actions=len(names))
    write(path, recipe)
    (path / "meta/libra_edge.json").unlink()
    for key in (STATE, ACTION):
        edit_columns(path, key, lambda _: rows)
        edit_info(path, lambda info, k=key: info["features"][k].update(names=names))
    return path


def test_a_stock_dataset_is_described(stock: Path) -> None:
    draft = draft_robot(str(stock))
    robot = draft.file.embodiment
    assert robot.name == "so101_follower"
    assert robot.control_hz == 30
    assert robot.cameras == ("front", "wrist")
    assert (robot.image_height, robot.image_width) == (96, 96)
    names = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
    assert [dim.name for dim in robot.state] == [dim.name for dim in robot.actions] == names
    assert [dim.unit for dim in robot.actions] == ["deg"] * 5 + [UNKNOWN]
    assert [dim.kind for dim in robot.actions] == ["absolute"] * 5 + ["gripper"]
    guessed = set(draft.file.guessed)
    for i in range(6):
        assert f"embodiment.state.{i}.unit" in guessed
        for key in ("unit", "kind", "lower", "upper"):
            assert f"embodiment.actions.{i}.{key}" in guessed


def test_a_draft_filled_in_is_a_description(stock: Path, tmp_path: Path) -> None:
    """Question marks stop, guesses are doubted, a draft that a person went through is taken."""
    file = stock / "meta/libra_edge.json"
    file.write_text(write_robot(draft_robot(stock).file))
    with pytest.raises(InputError, match="robot-description-unfinished") as caught:
        read_robot(file)
    assert "embodiment.state.5.unit" in caught.value.fact
    content = json.loads(file.read_text().replace('"?"', '"1"'))
    file.write_text(json.dumps(content))
    found = examine(stock, Expectation(needs_robot=True))
    assert found.count("error") == 0
    assert "robot-description-guessed" in [f.code for f in found.findings if f.level == "doubt"]
    del content["guessed"]
    file.write_text(json.dumps(content))
    examine(stock, Expectation(needs_robot=True)).require(strict=True)


def test_what_names_and_values_tell(tmp_path: Path) -> None:
    time = np.linspace(0, 6, 200)[:, None]
    scale = np.array([0.4, 1.5, 90.0, 1.0, 3.0, 50.0, 0.02])
    rows = np.sin(time + np.arange(7)) * scale
    names = ["x", "joint_1", "joint_2", "gripper", "foo_deg", "mystery", "delta_x"]
    robot = draft_robot(named(tmp_path / "set", names, rows)).file.embodiment
    units = [dim.unit for dim in robot.actions]
    assert units == ["m", "rad", "deg", "1", "deg", UNKNOWN, "m"]
    kinds = [dim.kind for dim in robot.actions]
    assert kinds[3] == "gripper"
    assert kinds[6] == "delta"
    for dim, column in zip(robot.actions, rows.T, strict=True):
        assert dim.lower < column.min()
        assert dim.upper > column.max()
        assert dim.upper - dim.lower < 1.5 * np.ptp(column)


def test_an_outlier_does_not_set_the_limits(tmp_path: Path) -> None:
    rows = np.sin(np.linspace(0, 20, 400))[:, None] * np.ones(2)
    rows[200, 0] = 1000.0
    robot = draft_robot(named(tmp_path / "set", ["joint_1", "joint_2"], rows)).file.embodiment
    assert robot.actions[0].upper < 2


def test_large_pictures_are_drafted_smaller(tmp_path: Path) -> None:
    path = write(tmp_path / "set", Recipe())
    edit_info(
        path,
        lambda info: [
            info["features"][f"observation.images.{camera}"].update(shape=[480, 640, 3])
            for camera in ("top", "wrist")
        ],
    )
    draft = draft_robot(path)
    assert (draft.file.embodiment.image_height, draft.file.embodiment.image_width) == (96, 128)
    assert "embodiment.image_height" in draft.file.guessed


@pytest.mark.parametrize(
    "names", [None, [], ["a"], {"motors": ["a", "b"]}, ["a", "a"], ["ä b/c", "…"], [["x", "y"]]]
)
def test_names_of_every_kind_give_names_a_robot_can_have(tmp_path: Path, names: Any) -> None:
    path = write(tmp_path / "set", Recipe(states=2, actions=2))
    edit_info(path, lambda info: info["features"][ACTION].update(names=names))
    found = [dim.name for dim in draft_robot(path).file.embodiment.actions]
    assert len(set(found)) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "no key 'embodiment'"),
        ("[]", "no object"),
        ("{", "not JSON"),
        ('{"embodiment": {}}', "embodiment.name is missing"),
        ('{"embodiment": 3}', "embodiment"),
        ('{"embodiment": {}, "guesses": []}', "missing"),
    ],
)
def test_slips_are_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "robot.json"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_robot(str(file))
    assert words in caught.value.fact
    assert str(file) in caught.value.fact


def test_every_key_that_is_left_out_is_named(tmp_path: Path) -> None:
    good = {"embodiment": Recipe().robot.model_dump(mode="json")}
    file = tmp_path / "robot.json"
    owners = {
        "embodiment": [],
        "embodiment.state.1": ["state", 1],
        "embodiment.actions.2": ["actions", 2],
    }
    for where, steps in owners.items():
        body: Any = good["embodiment"]
        for step in steps:
            body = body[step]
        for key in body:
            content = json.loads(json.dumps(good))
            place = content["embodiment"]
            for step in steps:
                place = place[step]
            del place[key]
            file.write_text(json.dumps(content))
            with pytest.raises(InputError, match="robot-description-invalid") as caught:
                read_robot(file)
            assert f"{where}.{key}" in caught.value.fact
            place["oops"] = 1
            place[key] = body[key]
            file.write_text(json.dumps(content))
            with pytest.raises(InputError) as caught:
                read_robot(file)
            assert f"{where}.oops" in caught.value.fact
