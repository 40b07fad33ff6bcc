"""The shipped policy, the whole way: compiled, proved, run by the C runtime in the simulator."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from functools import partial
from pathlib import Path

import pytest

from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.data.simulator import open_simulator
from libra_edge.evaluation import closed_loop
from libra_edge.evaluation.closed_loop import EpisodeResult, open_controller, plan_episodes
from libra_edge.verification.request import Request as VerifyRequest
from libra_edge.verification.verify import verify_release
from tests.packaging.built_wheel import build_wheel
from tests.runtime.native_build import golden_program, run_golden

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "examples/metaworld/checkpoint"
HELDOUT = ROOT / "examples/metaworld/heldout"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    request = Request(
        checkpoint=CHECKPOINT,
        data=HELDOUT,
        out=folder / "release",
        cache=folder / "cache",
        form="loop",
    )
    return compile_checkpoint(request).path


def test_the_release_is_the_policy_on_200_held_out_observations(release: Path) -> None:
    """The gates: tokens equal in 99.9 %, others with a margin under 1e-3, actions within 1e-4."""
    result = verify_release(VerifyRequest(release, CHECKPOINT, HELDOUT, samples=200))
    assert result.exit_code == 0, [c for c in result.checks if c.verdict != "pass"]
    end_to_end = [c for c in result.checks if "end to end" in c.stage]
    assert {c.metric for c in end_to_end} >= {"tokens equal", "action error / range"}
    assert all(c.samples >= 200 for c in end_to_end)


def test_a_c_program_replays_the_golden_vectors(release: Path, tmp_path: Path) -> None:
    result = run_golden(golden_program(tmp_path / "golden", release), release, 1e-4, 1e-3)
    assert result.returncode == 0, result.stdout + result.stderr


def both_ways(release: Path, episodes: int) -> tuple[list[EpisodeResult], list[EpisodeResult]]:
    simulator = partial(open_simulator, "metaworld", "eval")
    opened = simulator()
    specs = plan_episodes(opened, opened.tasks, episodes, seed=100)
    checkpoint, compiled = (
        closed_loop.run(partial(open_controller, path), simulator, specs)
        for path in (CHECKPOINT, release)
    )
    return checkpoint, compiled


def test_the_release_does_in_the_simulator_what_the_checkpoint_does(release: Path) -> None:
    checkpoint, compiled = both_ways(release, episodes=1)
    assert closed_loop.compare(checkpoint, compiled).agreement == 1.0
    assert sum(result.success for result in compiled) >= len(compiled) - 1


@pytest.mark.long
def test_fifty_episodes_end_alike(release: Path) -> None:
    checkpoint, compiled = both_ways(release, episodes=10)
    assert closed_loop.compare(checkpoint, compiled).agreement >= 0.98
    assert closed_loop.summarize(compiled).rate >= 0.88


@pytest.mark.long
def test_the_policy_listens_to_its_instruction() -> None:
    opposite = {"faucet-open": "faucet-close", "faucet-close": "faucet-open"}
    simulator = partial(open_simulator, "metaworld", "eval")
    specs = plan_episodes(simulator(), tuple(opposite), 10, seed=100, swap=opposite)
    results = closed_loop.run(partial(open_controller, CHECKPOINT), simulator, specs)
    assert closed_loop.summarize(results).rate <= 0.1


def test_the_wheel_runs_a_release_in_an_empty_environment(release: Path, tmp_path: Path) -> None:
    """What a field laptop has: the wheel with the simulator, no PyTorch, no repository."""
    wheel = build_wheel(tmp_path)
    venv.create(tmp_path / "field", with_pip=True)
    python = tmp_path / "field/bin/python"
    constraints = ROOT / "constraints.txt"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "-c", constraints, f"{wheel}[sim]"], check=True
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def run(*arguments: str) -> str:
        program = [str(tmp_path / "field/bin/libra-edge"), *arguments]
        result = subprocess.run(
            program, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "compile" in run("--help")
    assert "cpu-x86_64" in run("inspect", str(release))
    told = run("simulate", str(release), "--task", "handle-press", "--episodes", "1", "--json")
    assert json.loads(told)["result"]["overall"]["episodes"] == 1
    replayed = run("simulate", str(release), "--replay", str(HELDOUT), "--episodes", "1")
    assert "ok" in replayed
    installed = subprocess.run(
        [python, "-m", "pip", "list"], capture_output=True, text=True, check=True
    ).stdout
    assert "torch" not in installed
