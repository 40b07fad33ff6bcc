"""Both noise processes, trained for a few steps by the CLI, compiled and verified."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from libra_edge.cli import app as program
from libra_edge.data.lerobot_writer import DatasetWriter
from libra_edge.data.types import Episode
from tests.tiny import INSTRUCTIONS, tiny_config, tiny_embodiment

POLICY = tiny_config().model_dump(mode="json", include={"planner", "refiner", "chunk"})
SCHEDULES = {
    "ddim": {"denoise_steps": 4},
    "dpm_solver_pp": {"scheduler": "dpm_solver_pp", "denoise_steps": 3},
    "flow_euler": {
        "scheduler": "flow_euler",
        "prediction_type": "velocity",
        "denoise_steps": 3,
        "clip_sample": "none",
    },
}


def run(*words: object) -> dict[str, object]:
    result = CliRunner().invoke(program.app, [*map(str, words), "--json"])
    assert result.exit_code == 0, result.stderr
    body: dict[str, object] = json.loads(result.stdout)["result"]
    return body


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "demonstrations"
    random = np.random.default_rng(0)
    with DatasetWriter(path, tiny_embodiment(), "lossless", {}) as writer:
        for i in range(3):
            writer.add(
                Episode(
                    images=random.integers(0, 256, (8, 2, 16, 24, 3), dtype=np.uint8),
                    states=random.normal(size=(8, 3)).astype(np.float32),
                    actions=np.linspace([-0.4, -1.5, 0], [0.5, 1, 1], 8, dtype=np.float32),
                    instruction=INSTRUCTIONS[i],
                    task="tiny",
                    success=True,
                    seed=i,
                )
            )
    return path


def toml_table(name: str, table: dict[str, object]) -> str:
    lines = [f"{k} = {json.dumps(v)}" for k, v in table.items() if not isinstance(v, dict)]
    parts = ["\n".join([f"[{name}]", *lines])]
    parts += [toml_table(f"{name}.{k}", v) for k, v in table.items() if isinstance(v, dict)]
    return "\n\n".join(parts)


def recipe(path: Path, schedule: dict[str, object]) -> Path:
    tables = toml_table("policy", POLICY | {"schedule": schedule})
    path.write_text(tables + "\n\n[training]\nsteps = 8\nbatch = 4\nprecision = 'float32'\n")
    return path


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_trained_policy_compiles_and_verifies(dataset: Path, tmp_path: Path, name: str) -> None:
    chosen = recipe(tmp_path / "recipe.toml", SCHEDULES[name])
    run("train", dataset, "--out", tmp_path / "run", "--recipe", chosen)
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["schedule"]["scheduler"] == name
    assert config["schedule"]["clip_sample"] == (None if name == "flow_euler" else 1.0)
    cache = ("--cache", tmp_path / "cache")
    compiled = run(
        *("compile", tmp_path / "run", "--out", tmp_path / "release", *cache),
        *("--data", dataset, "--form", "loop"),
    )
    assert compiled["checks"]
    checked = run(
        *("verify", tmp_path / "release", "--checkpoint", tmp_path / "run", *cache),
        *("--data", dataset, "--samples", 12),
    )
    assert checked


def test_a_run_can_start_from_a_checkpoint(dataset: Path, tmp_path: Path) -> None:
    chosen = recipe(tmp_path / "recipe.toml", SCHEDULES["ddim"])
    run("train", dataset, "--out", tmp_path / "first", "--recipe", chosen)
    words = ("train", dataset, "--from", tmp_path / "first", "--recipe")
    run(*words, chosen, "--out", tmp_path / "second")
    first, second = (load_file(tmp_path / n / "model.safetensors") for n in ("first", "second"))
    assert first.keys() == second.keys()
    # Eight small steps from the first run's weights, not from new ones.
    moved = max(float((first[k] - second[k]).abs().max()) for k in first)
    assert 0 < moved < 0.02
    for name in ("stats.json", "tokenizer.json", "config.json"):
        assert (tmp_path / "first" / name).read_text() == (tmp_path / "second" / name).read_text()
    other = recipe(tmp_path / "other.toml", SCHEDULES["dpm_solver_pp"])
    refused = CliRunner().invoke(
        program.app, [*map(str, words), str(other), "--out", str(tmp_path / "third")]
    )
    assert refused.exit_code == 2
    assert "error[start-mismatch]" in refused.stderr
    assert not (tmp_path / "third").exists()


def test_training_goes_on_only_where_it_is_told_to(dataset: Path, tmp_path: Path) -> None:
    chosen = recipe(tmp_path / "recipe.toml", SCHEDULES["ddim"])
    words = ["train", str(dataset), "--out", str(tmp_path / "run"), "--recipe", str(chosen)]
    assert CliRunner().invoke(program.app, words).exit_code == 0
    again = CliRunner().invoke(program.app, words)
    assert again.exit_code == 2
    assert "error[run-exists]" in again.stderr
    assert CliRunner().invoke(program.app, [*words, "--resume"]).exit_code == 0
