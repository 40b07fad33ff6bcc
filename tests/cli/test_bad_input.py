"""What a user can hand in wrong: code, fact, remedy, exit code, and nothing half-written."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from libra_edge.cli import app as program
from libra_edge.data.lerobot_writer import DatasetWriter
from libra_edge.data.types import Episode
from libra_edge.policy.config import ActionDim
from tests.tiny import tiny_embodiment, write_tiny_checkpoint

Damage = Callable[[Path], object]


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        change(found)
        save_file(found, folder / "model.safetensors")

    return damage


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def unknown_key(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text()) | {"chunks": 3}
    (folder / "config.json").write_text(json.dumps(content))


DAMAGES: dict[str, Damage] = {
    "not-a-checkpoint": lambda folder: (folder / "config.json").unlink(),
    "checkpoint-missing-tensor": tensors(lambda t: t.pop("planner.queries")),
    "checkpoint-extra-tensor": tensors(lambda t: t.update(more=torch.zeros(1))),
    "checkpoint-wrong-shape": tensors(lambda t: t.update({"planner.queries": torch.zeros(2)})),
    "checkpoint-not-finite": tensors(lambda t: t["planner.queries"].fill_(float("nan"))),
    "checkpoint-unreadable": cut,
    "checkpoint-pickle": lambda f: (f / "model.safetensors").write_bytes(pickle.dumps({})),
    "config-unknown-key": unknown_key,
}


def refused(*words: object) -> dict[str, object]:
    result = CliRunner().invoke(program.app, [*map(str, words), "--json"])
    error: dict[str, object] = json.loads(result.stdout)["error"]
    assert result.exit_code == error["exit_code"]
    assert error["fact"]
    assert error["remedy"]
    assert f"error[{error['code']}]" in result.stderr
    assert "Traceback" not in result.stderr
    return error


@pytest.mark.parametrize("code", DAMAGES)
def test_damaged_checkpoints(tmp_path: Path, code: str) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    DAMAGES[code](checkpoint)
    out = tmp_path / "release"
    error = refused("compile", checkpoint, "--out", out, "--cache", tmp_path / "cache")
    assert (error["code"], error["exit_code"]) == (code, 2)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["checkpoint"]


def test_a_dataset_of_another_robot(tmp_path: Path) -> None:
    more = ActionDim(name="more", unit="m", kind="delta", lower=-1, upper=1)
    robot = tiny_embodiment()
    robot = robot.model_copy(update={"actions": (*robot.actions, more)})
    with DatasetWriter(tmp_path / "data", robot, "lossless", {}) as writer:
        writer.add(
            Episode(
                images=np.zeros((4, 2, 16, 24, 3), np.uint8),
                states=np.zeros((4, 3), np.float32),
                actions=np.zeros((4, 4), np.float32),
                instruction="open the faucet",
                task="tiny",
                success=True,
                seed=0,
            )
        )
    checkpoint, out = write_tiny_checkpoint(tmp_path / "checkpoint"), tmp_path / "release"
    words = ("compile", checkpoint, "--data", tmp_path / "data", "--out", out)
    error = refused(*words, "--cache", tmp_path / "cache")
    assert error["exit_code"] == 2
    assert "4" in str(error["fact"])
    assert "3" in str(error["fact"])
    assert not out.exists()


def test_simulating_a_policy_of_another_robot(tmp_path: Path) -> None:
    pytest.importorskip("metaworld", reason="needs the sim extra")
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    error = refused("simulate", checkpoint, "--episodes", 1)
    assert (error["code"], error["exit_code"]) == ("embodiment-mismatch", 4)


def test_training_on_nothing(tmp_path: Path) -> None:
    assert refused("train", tmp_path, "--out", tmp_path / "run")["exit_code"] == 2
    assert not (tmp_path / "run").exists()


def test_a_simulator_that_does_not_exist(tmp_path: Path) -> None:
    error = refused("collect", "--out", tmp_path / "d", "--simulator", "metawold")
    assert "metaworld" in str(error["remedy"])
    error = refused("collect", "--out", tmp_path / "d", "--task", "faucet-opn")
    assert "faucet-open" in str(error["remedy"])
    for number in ("0", "many", ""):
        error = refused("collect", "--out", tmp_path / "d", "--task", f"faucet-open={number}")
        assert error["exit_code"] == 2
        assert "--task faucet-open=60" in str(error["remedy"])
    assert not (tmp_path / "d").exists()


def test_collecting_over_something(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/mine").write_text("keep")
    assert refused("collect", "--out", tmp_path / "d")["exit_code"] == 2
    assert (tmp_path / "d/mine").read_text() == "keep"
    shutil.rmtree(tmp_path / "d")
