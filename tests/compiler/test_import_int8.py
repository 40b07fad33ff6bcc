"""Imported policies in 8-bit integers: compiled, calibrated again, judged by their own graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from libra_edge.bundle.verify import verify_integrity
from libra_edge.cli import app as program
from libra_edge.data.lerobot_writer import DatasetWriter
from libra_edge.data.types import Episode
from libra_edge.verification.claims.graphs import read_graph
from tests.compiler.quantization.test_fp16 import moving
from tests.policy.lerobot_cases import (
    IMAGES,
    Case,
    case,
    changed,
    edit,
    edit_tensors,
    robot_for,
    write_robot_file,
)

SIZE = (32, 48)
# Of random weights, some of whose numbers 16-bit floats hardly hold.
GATES = "[gates]\ntokens = 0.5\naction = 0.4\nmargin_percentile = 50\n"


def same_cameras(found: Case, out: Path) -> Path:
    """The case with cameras of one size, as datasets have them."""
    inputs = json.loads((found.folder / "config.json").read_text())["input_features"]
    for name, feature in inputs.items():
        if name.startswith(IMAGES):
            feature["shape"] = [3, *SIZE]
    return changed(found.folder, out, edit("config.json", input_features=inputs))


def write_data(folder: Path, path: Path) -> Path:
    robot, random = robot_for(folder), np.random.default_rng(0)
    shape = (44, len(robot.cameras), *SIZE, 3)
    with DatasetWriter(path, robot, "lossless", {}) as writer:
        for number in range(3):
            writer.add(
                Episode(
                    images=random.integers(0, 256, shape, dtype=np.uint8),
                    states=random.normal(size=(44, len(robot.state))).astype(np.float32),
                    actions=random.normal(size=(44, len(robot.actions))).astype(np.float32),
                    instruction="pick the cube",
                    task=f"task {number % 2}",
                    success=True,
                    seed=number + 1,
                )
            )
    return path


def words_of(found: Case, shop: Path) -> list[str]:
    return [*found.flags(shop / "robot.json"), "--cache", str(shop / "cache"), "--calibrate"]


@pytest.fixture(scope="module", params=["act", "smolvla"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    found, shop = case(request.param), tmp_path_factory.mktemp(request.param)
    folder = same_cameras(found, shop / "folder")
    write_robot_file(robot_for(folder), shop / "robot.json")
    data, out = write_data(folder, shop / "data"), shop / "release"
    words = ["compile", str(folder), *words_of(found, shop), str(data), "--out", str(out)]
    words += ["--recipe", "int8", "--calibration-samples", "128"]
    done = CliRunner().invoke(program.app, [*words, "--form", "loop"] if found.tasks else words)
    assert done.exit_code == 0, done.output
    return found, shop, out


def test_layers_run_in_integers(compiled: Any) -> None:
    found, _, out = compiled
    manifest = verify_integrity(out)
    assert manifest.recipe == "int8"
    assert manifest.calibration is not None
    layers = {name: layer.precision for name, layer in manifest.calibration.layers.items()}
    rounded = [name for name, precision in layers.items() if precision == "int8"]
    parts = ("prefix.vision", "prefix.language", "expert.layers")
    for part in parts if found.tasks else ("network.encoder", "network.decoder"):
        assert any(name.startswith(part) for name in rounded), part
    assert layers[parts[0] + ".embeddings.patch_embedding" if found.tasks else STEM] == "fp32"


STEM = "network.backbone.conv1"


def test_verify_calibrates_again_and_passes(compiled: Any) -> None:
    found, shop, out = compiled
    words = ["verify", str(out), "--checkpoint", str(shop / "folder"), *words_of(found, shop)]
    done = CliRunner().invoke(program.app, [*words, str(shop / "data"), "--samples", "8"])
    assert done.exit_code == 0, done.output
    assert "quantised vs PyTorch policy" in done.output


@pytest.mark.long
@pytest.mark.parametrize("name", ["act", "smolvla"])
def test_a_gpu_gets_the_rest_in_16_bits(name: str, tmp_path: Path) -> None:
    found = case(name)
    cameras = same_cameras(found, tmp_path / "cameras")
    statistics = edit_tensors("policy_preprocessor*.safetensors", moving)
    folder = changed(cameras, tmp_path / "folder", statistics)
    write_robot_file(robot_for(folder), tmp_path / "robot.json")
    (tmp_path / "gates.toml").write_text(GATES)
    data, out = write_data(folder, tmp_path / "data"), tmp_path / "release"
    same = [*words_of(found, tmp_path), str(data), "--gates", str(tmp_path / "gates.toml")]
    same.append("--allow-loose")
    words = ["compile", str(folder), *same, "--out", str(out), "--recipe", "int8"]
    words += ["--target", "rtx4090", "--engines-on-device", "--calibration-samples", "128"]
    done = CliRunner().invoke(program.app, [*words, "--form", "loop"] if found.tasks else words)
    assert done.exit_code == 0, done.output
    facts = read_graph((out / "engines/refiner.onnx").read_bytes())
    assert facts.rest == {"fp16"}
    assert {str(facts.precision(layer)) for layer in facts.layers} == {"fp16", "int8"}
    words = ["verify", str(out), "--checkpoint", str(folder), *same, "--samples", "4"]
    done = CliRunner().invoke(program.app, words)
    assert "graphs, as written vs fused" in done.output
    assert done.exit_code == 0, done.output


def test_data_of_another_robot_is_refused_before_work(tmp_path: Path) -> None:
    found = case("smolvla")
    folder = same_cameras(found, tmp_path / "folder")
    write_robot_file(robot_for(folder), tmp_path / "robot.json")
    act = case("diffusion-ddim")
    data = write_data(same_cameras(act, tmp_path / "other"), tmp_path / "data")
    words = ["compile", str(folder), *words_of(found, tmp_path), str(data), "--recipe", "int8"]
    done = CliRunner().invoke(program.app, [*words, "--out", str(tmp_path / "no")])
    assert done.exit_code != 0
    assert not (tmp_path / "no").exists()
