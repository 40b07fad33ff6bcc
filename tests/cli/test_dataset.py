"""The kinds of `shared/cases/lerobot-v3`, made of one that LeRobot wrote, through real commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from libra_edge.cli import app as program
from tests.data.generated import (
    ACTION,
    STATE,
    edit_cell,
    edit_columns,
    edit_info,
    edit_json,
    edit_robot,
    edit_rows,
    index_file,
    tables,
)
from tests.tiny import tiny_config

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests/data/cases"
POLICY = tiny_config().model_dump(mode="json", include={"planner", "refiner", "chunk"})


def nothing(_: Path) -> None:
    pass


def describe_anew(path: Path) -> None:
    (path / "meta/libra_edge.json").unlink()


def flatten(path: Path) -> None:
    file = path / "meta/libra_edge.json"
    file.write_text(json.dumps(json.loads(file.read_text())["embodiment"]))


def change_instruction(path: Path) -> None:
    for frame in range(15, 30):
        edit_cell(path, "task_index", 0, frame, lambda _: 1)
    both = ["pick the red cube", "pick the blue cube"]
    edit_rows(index_file(path), lambda rows: rows[0].update(tasks=both))


def told(*texts: str) -> Callable[[Path], None]:
    """Other instructions: in the table of tasks, and in the index of episodes."""

    def change(path: Path) -> None:
        def rename(rows: list[dict[str, Any]]) -> None:
            for row, text in zip(rows, texts, strict=True):
                row["__index_level_0__"] = text

        edit_rows(path / "meta/tasks.parquet", rename)
        edit_rows(
            index_file(path),
            lambda rows: [row.update(tasks=[t]) for row, t in zip(rows, texts, strict=True)],
        )

    return change


def hold_elbow(path: Path) -> None:
    for key in (STATE, ACTION):
        edit_columns(path, key, lambda rows: rows * [1, 1, 0, 1, 1, 1] + [0, 0, 12.5, 0, 0, 0])


def rare_gripper(path: Path) -> None:
    def change(rows: Any) -> Any:
        rows[:, 5] = 0.0
        if len(rows) > 40:
            rows[40, 5] = 100.0
        return rows

    edit_columns(path, ACTION, change)


def without_quantiles(path: Path) -> None:
    def drop(stats: dict[str, Any]) -> None:
        for feature in stats.values():
            for name in ("q01", "q10", "q50", "q90", "q99"):
                del feature[name]

    edit_json(path / "meta/stats.json", drop)


def drift(path: Path) -> None:
    key = "videos/observation.images.wrist"
    edit_rows(
        index_file(path),
        lambda rows: rows[1].update({f"{key}/from_timestamp": 1 + 0.6 / 30}),
    )


def nan(key: str, dim: int) -> Callable[[Path], None]:
    return lambda path: edit_cell(
        path, key, 1, 7, lambda v: [*v[:dim], float("nan"), *v[dim + 1 :]]
    )


LONG = "the left arm holds the clay in place while the right arm slices it and moves sideways"
RIGHT: dict[str, Callable[[Path], None]] = {
    "base": nothing,
    "const": hold_elbow,
    "german": told("Öffne die Schublade", "打开 抽屉"),
    "twotasks": change_instruction,
    "m-noq": without_quantiles,
}
WRONG: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "swapped": (
        lambda path: edit_robot(path, lambda robot: robot["cameras"].reverse()),
        "dataset-mismatch",
        "wrist, front",
    ),
    "raregrip": (rare_gripper, "dataset-range-lost", "action[5]"),
    "stock": (describe_anew, "embodiment-missing", "libra-edge dataset describe"),
    "m-driftmid": (drift, "dataset-video-offset", "observation.images.wrist of episode 1"),
    "m-badrobot": (
        lambda path: edit_robot(path, lambda robot: robot["actions"][0].pop("unit")),
        "robot-description-invalid",
        "embodiment.actions.0.unit",
    ),
    "m-noembkey": (flatten, "robot-description-invalid", "'embodiment'"),
    "nan": (nan(STATE, 3), "dataset-not-finite", "observation.state[3]"),
    "nan-action": (nan(ACTION, 0), "dataset-not-finite", "episode 1, frame 7"),
    "longtask": (told(LONG, LONG), "dataset-instruction-too-long", "instruction_length = 17"),
    "emptytask": (told("", ""), "dataset-instruction-empty", "episode 0, frame 0"),
}


def call(*words: object) -> Result:
    return CliRunner().invoke(program.app, [*map(str, words), "--json"])


def succeeded(*words: object) -> dict[str, Any]:
    result = call(*words)
    assert result.exit_code == 0, result.stderr
    body: dict[str, Any] = json.loads(result.stdout)["result"]
    return body


def refused(*words: object) -> dict[str, Any]:
    result = call(*words)
    assert result.exit_code == 2, result.stderr
    assert "Traceback" not in result.stderr
    body: dict[str, Any] = json.loads(result.stdout)["error"]
    return body


def copied(path: Path, name: str = "base") -> Path:
    return Path(shutil.copytree(CASES / name, path))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    lines = ["[training]", "steps = 2", "batch = 4", "precision = 'float32'"]
    for table in ("planner", "refiner"):
        for name, values in {
            table: POLICY[table],
            f"{table}.backbone": POLICY[table].get("backbone"),
        }.items():
            if values:
                lines.append(f"[policy.{name}]")
                lines += [
                    f"{k} = {json.dumps(v)}" for k, v in values.items() if not isinstance(v, dict)
                ]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    succeeded("train", CASES / "base", "--recipe", recipe, "--out", out)
    return out


@pytest.mark.parametrize("name", RIGHT)
def test_right_ones_train(name: str, tmp_path: Path, recipe: Path) -> None:
    path = copied(tmp_path / "set")
    RIGHT[name](path)
    if name in ("const", "german"):
        (path / "meta/stats.json").unlink()
    assert succeeded("dataset", "check", path, "--strict")["errors"] == 0
    body = succeeded("train", path, "--recipe", recipe, "--out", tmp_path / "run", "--strict")
    assert body["steps"] == 2


def test_pictures_in_tables_train(tmp_path: Path, recipe: Path) -> None:
    body = succeeded("train", CASES / "png", "--recipe", recipe, "--out", tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["embodiment"]["cameras"] == ["front", "wrist"]
    assert [f for f in body["findings"] if f["level"] != "note"] == []


@pytest.mark.parametrize("name", WRONG)
def test_wrong_ones_stop_before_training(name: str, tmp_path: Path, recipe: Path) -> None:
    path = copied(tmp_path / "set")
    damage, code, words = WRONG[name]
    damage(path)
    error = refused("train", path, "--recipe", recipe, "--out", tmp_path / "run")
    assert error["code"] == code
    assert words in error["fact"] + error["remedy"]
    assert not (tmp_path / "run").exists()
    check = call("dataset", "check", path)
    body = json.loads(check.stdout)["result"]
    if name != "stock":
        assert check.exit_code == 2
        assert code in [finding["code"] for finding in body["findings"]]


def test_remedies_help(tmp_path: Path, recipe: Path) -> None:
    """What the errors say to do is done, and then it trains."""
    path = copied(tmp_path / "rare")
    rare_gripper(path)
    spanned = tmp_path / "spanned.toml"
    spanned.write_text(recipe.read_text() + '\n[policy.normalization]\naction = "min_max"\n')
    succeeded("train", path, "--recipe", spanned, "--out", tmp_path / "spanned")
    path = copied(tmp_path / "long")
    told(LONG, LONG)(path)
    longer = tmp_path / "longer.toml"
    longer.write_text("[policy]\ninstruction_length = 17\n" + recipe.read_text())
    succeeded("train", path, "--recipe", longer, "--out", tmp_path / "longer")


def test_doubts_warn_and_stop_when_strict(tmp_path: Path, recipe: Path) -> None:
    path = copied(tmp_path / "set")
    edit_info(path, lambda info: info.update(total_frames=61))
    body = succeeded("dataset", "check", path)
    assert (body["errors"], body["doubts"]) == (0, 1)
    assert call("dataset", "check", path, "--strict").exit_code == 2
    words = ("train", path, "--recipe", recipe, "--out")
    assert refused(*words, tmp_path / "strict", "--strict")["code"] == "dataset-totals"
    found = succeeded(*words, tmp_path / "run")["findings"]
    assert "dataset-totals" in [f["code"] for f in found if f["level"] == "doubt"]


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A dataset that is right, one with an error, one with a doubt."""
    good, bad, odd = (copied(tmp_path / name) for name in ("good", "bad", "odd"))
    nan(STATE, 3)(bad)
    edit_info(odd, lambda info: info.update(total_frames=61))
    return good, bad, odd


def test_compile_and_replay_examine_their_datasets(
    tmp_path: Path, checkpoint: Path, sets: tuple[Path, Path, Path]
) -> None:
    good, bad, odd = sets
    release = tmp_path / "release"
    build = ("compile", checkpoint, "--out", release, "--cache", tmp_path / "cache")
    assert refused(*build, "--data", bad)["code"] == "dataset-not-finite"
    assert refused(*build, "--data", odd, "--strict")["code"] == "dataset-totals"
    quantised = (*build, "--recipe", "int8", "--calibrate", bad, "--data", good)
    assert refused(*quantised)["code"] == "dataset-not-finite"
    assert not release.exists()
    replay = ("simulate", checkpoint, "--replay")
    assert refused(*replay, bad)["code"] == "dataset-not-finite"
    assert refused(*replay, odd, "--strict")["code"] == "dataset-totals"
    doubts = succeeded(*replay, odd)["dataset_doubts"]
    assert [doubt["code"] for doubt in doubts] == ["dataset-totals"]
    words = copied(tmp_path / "words")
    told("dance", "sing")(words)
    assert refused("simulate", checkpoint, "--replay", words)["code"] == "instruction-unknown"


@pytest.mark.long
def test_releases_and_their_datasets(
    tmp_path: Path, checkpoint: Path, sets: tuple[Path, Path, Path]
) -> None:
    good, bad, odd = sets
    release, cache = tmp_path / "release", ("--cache", tmp_path / "cache")
    build = ("compile", checkpoint, "--out", release, "--form", "loop", *cache)
    doubts = succeeded(*build, "--data", odd)["dataset_doubts"]
    assert [doubt["code"] for doubt in doubts] == ["dataset-totals"]
    verify = ("verify", release, "--checkpoint", checkpoint, "--quick", *cache, "--data")
    assert refused(*verify, bad)["code"] == "dataset-not-finite"
    assert refused(*verify, odd, "--strict")["code"] == "dataset-totals"
    doubts = succeeded(*verify, odd)["dataset_doubts"]
    assert [doubt["code"] for doubt in doubts] == ["dataset-totals"]
    assert refused("simulate", release, "--replay", bad)["code"] == "dataset-not-finite"
    succeeded("simulate", release, "--replay", good)


def test_from_a_stock_dataset_to_a_checkpoint(tmp_path: Path, recipe: Path) -> None:
    """As docs/how-to/use-a-lerobot-dataset.md says: describe, correct, check, train."""
    path = copied(tmp_path / "set")
    describe_anew(path)
    robot = tmp_path / "robot.json"
    drafted = succeeded("dataset", "describe", path, "--out", robot)
    assert drafted["unknown"] == 2
    words = (path, "--recipe", recipe, "--robot", robot)
    error = refused("train", *words, "--out", tmp_path / "run")
    assert error["code"] == "robot-description-unfinished"
    assert refused("dataset", "describe", path, "--out", robot)["code"] == "output-exists"
    content = json.loads(robot.read_text().replace('"?"', '"1"'))
    del content["guessed"]
    robot.write_text(json.dumps(content))
    assert succeeded("dataset", "check", *words, "--strict")["robot"] == "so101_follower"
    succeeded("train", *words, "--out", tmp_path / "run", "--strict")
    # The dataset was not touched.
    assert not (path / "meta/libra_edge.json").exists()
    assert len(tables(path)) == 1


@pytest.mark.long
def test_from_a_stock_dataset_to_a_release(tmp_path: Path, recipe: Path) -> None:
    """The whole of the same page, as it is written there, and that no step was left out of it."""
    path, robot, run = copied(tmp_path / "set"), tmp_path / "robot.json", tmp_path / "run"
    describe_anew(path)
    succeeded("dataset", "describe", path, "--out", robot)
    content = json.loads(robot.read_text().replace('"?"', '"1"'))
    del content["guessed"]
    robot.write_text(json.dumps(content))
    succeeded("dataset", "check", path, "--robot", robot)
    succeeded("train", path, "--robot", robot, "--recipe", recipe, "--out", run)
    release, cache = tmp_path / "release", ("--cache", tmp_path / "cache")
    compiled = succeeded("compile", run, "--data", path, "--out", release, *cache)
    assert {check["verdict"] for check in compiled["checks"]} == {"pass"}
    result = call("verify", release, "--checkpoint", run, "--data", path, *cache)
    verified = json.loads(result.stdout)["result"]
    failed = [check for check in verified["checks"] if check["verdict"] != "pass"]
    # A stem of four channels divides flat pictures by next to no variance, twice: rounding grows to
    # some 0.4 % of an action's range there. Nothing else may differ.
    assert {check["stage"] for check in failed} <= {"C ABI vs PyTorch policy, edge inputs"}
    assert all(check["value"] < 0.01 for check in failed)
    assert {"native library vs reference", "C ABI steps vs reference executor"} <= {
        check["stage"] for check in verified["checks"]
    }
    succeeded("simulate", release, "--replay", path)
    page = (ROOT / "docs/how-to/use-a-lerobot-dataset.md").read_text(encoding="utf-8")
    for words in ("dataset describe", "dataset check", "train", "compile", "verify"):
        assert f"libra-edge {words}" in page
