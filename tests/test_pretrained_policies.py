"""Libra-VLA on pretrained models: trained for a few steps by the CLI, compiled and verified."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from libra_edge.cli import app as program
from libra_edge.policy.checkpoint import load_checkpoint
from tests.pretrained_models import (
    write_dinov2,
    write_internvl,
    write_qwen,
    write_siglip,
)
from tests.test_train_and_compile import dataset, toml_table
from tests.tiny import INSTRUCTIONS

__all__ = ["dataset"]
SHAPES = {"chunk": 3, "chunks_per_plan": 2, "instruction_length": 16}
TRAINING = {"steps": 2, "batch": 4, "precision": "float32", "save_every": 1}
TABLES = {
    "planner": {"head_layers": 1, "head_heads": 2, "head_width": 16},
    "refiner": {"width": 16, "encoder_layers": 1, "layers": 1, "heads": 2},
    "schedule": {"denoise_steps": 2},
}


def run(*words: object, status: int = 0) -> dict[str, object]:
    result = CliRunner().invoke(program.app, [*map(str, words), "--json"])
    assert result.exit_code == status, result.stderr
    body: dict[str, object] = json.loads(result.stdout)
    return body


def recipe(path: Path, backbone: dict[str, object] | None = None, **training: object) -> Path:
    planner = TABLES["planner"] | ({"backbone": backbone} if backbone else {})
    tables = {"training": TRAINING | training, "policy": SHAPES | TABLES | {"planner": planner}}
    path.write_text("\n".join(toml_table(name, table) for name, table in tables.items()))
    return path


@pytest.mark.parametrize(
    ("write", "see", "own"),
    [
        (write_internvl, write_siglip, {"max_tiles": 2}),
        (write_qwen, write_dinov2, {"max_pixels": 28 * 28}),
    ],
    ids=["internvl", "qwen2_5_vl"],
)
def test_train_compile_and_verify(
    write: object, see: object, own: dict[str, object], dataset: Path, tmp_path: Path
) -> None:
    backbone, eyes = write(tmp_path / "vlm"), see(tmp_path / "eyes")  # type: ignore[operator]
    made = recipe(tmp_path / "recipe.toml", own, freeze_backbone="all")
    out = tmp_path / "run"
    run("train", dataset, "--recipe", made, "--out", out, "--backbone", backbone, "--eyes", eyes)
    # A checkpoint holds all that compiling needs.
    shutil.rmtree(backbone)
    shutil.rmtree(eyes)
    config = json.loads((out / "config.json").read_text())
    key, value = next(iter(own.items()))
    assert config["planner"]["backbone"][key] == value
    policy = load_checkpoint(out)
    assert policy.tokenizer.encode(INSTRUCTIONS[0])[-1] == policy.tokenizer.pad
    release = tmp_path / "release"
    cache = ("--cache", tmp_path / "cache")
    # The loop alone: what is unrolled is tested elsewhere.
    run("compile", out, "--data", dataset, "--form", "loop", "--out", release, *cache)
    verified = run("verify", release, "--checkpoint", out, "--data", dataset, "--quick", *cache)
    verdicts = [check["verdict"] for check in verified["result"]["checks"]]  # type: ignore[index]
    assert verdicts
    assert set(verdicts) == {"pass"}


def test_training_goes_on_and_starts_from_a_checkpoint(dataset: Path, tmp_path: Path) -> None:
    folder = write_internvl(tmp_path / "vlm")
    usual, longer = recipe(tmp_path / "usual.toml"), recipe(tmp_path / "longer.toml", steps=3)
    first, second = tmp_path / "first", tmp_path / "second"
    named = ("--backbone", folder)
    run("train", dataset, "--recipe", usual, "--out", first, *named)
    # Whoever resumes names the folder again; a policy of another kind is not mixed in.
    again = ("train", dataset, "--recipe", usual, "--out", first, "--resume")
    assert run(*again, status=2)["error"]["code"] == "resume-mismatch"  # type: ignore[index]
    run(*again, *named)
    start = ("train", dataset, "--recipe", longer, "--out", second, "--from", first)
    assert run(*start, *named, status=2)["error"]["code"] == "usage"  # type: ignore[index]
    run(*start)
    before, after = (load_file(path / "model.safetensors") for path in (first, second))
    changed = {name for name in before if not before[name].equal(after[name])}
    # The vision tower is left alone, as in the paper; the language model learns.
    assert not any("vision_tower" in name for name in changed)
    assert any("language_model" in name for name in changed)
    assert any("multi_modal_projector" in name for name in changed)


@pytest.mark.parametrize(
    ("backbone", "training", "code", "fact"),
    [
        ({"hidden_size": 3}, {}, "recipe-invalid", "min_tiles, max_tiles"),
        ({"kind": "qwen2_5_vl"}, {}, "recipe-invalid", "internvl"),
        ({"min_tiles": 3, "max_tiles": 2}, {}, "recipe-invalid", "min_tiles"),
        (None, {"freeze_eyes": True}, "recipe-invalid", "no pretrained eyes"),
    ],
)
def test_a_recipe_that_does_not_fit_the_backbone(
    backbone: dict[str, object] | None,
    training: dict[str, object],
    code: str,
    fact: str,
    dataset: Path,
    tmp_path: Path,
) -> None:
    made = recipe(tmp_path / "recipe.toml", backbone, **training)
    folder = write_internvl(tmp_path / "vlm")
    words = ("train", dataset, "--recipe", made, "--out", tmp_path / "run", "--backbone", folder)
    error = run(*words, status=2)["error"]
    assert error["code"] == code  # type: ignore[index]
    assert fact in error["fact"]  # type: ignore[index]


def test_nothing_to_freeze(dataset: Path, tmp_path: Path) -> None:
    made = recipe(tmp_path / "recipe.toml", freeze_backbone="all")
    error = run("train", dataset, "--recipe", made, "--out", tmp_path / "run", status=2)["error"]
    assert "no pretrained backbone" in error["fact"]  # type: ignore[index]


def test_a_wrong_folder_stops_before_the_data_is_read(tmp_path: Path) -> None:
    folder = write_siglip(tmp_path / "eyes")
    words = ("train", tmp_path / "no-dataset", "--out", tmp_path / "run", "--backbone", folder)
    error = run(*words, status=2)["error"]
    assert error["code"] == "backbone-other-model"  # type: ignore[index]
