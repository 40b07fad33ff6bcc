"""`verify` must fail on every fault of the catalogue, and on no good release."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from libra_edge.cli import app as program
from libra_edge.errors import ExitCode, LibraError
from tests.attacks.engines.catalogue import FAULTS, PLACES
from tests.attacks.engines.rebuilds import REBUILDS
from tests.attacks.engines.runtime_faults import RUNTIME_FAULTS
from tests.attacks.engines.workshop import Workshop

_LONG = pytest.mark.long


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("catalogue"))


def test_the_catalogue_is_long_enough() -> None:
    assert len(FAULTS) >= 110
    assert set(PLACES) <= set(FAULTS)


def some_now() -> list[object]:
    """Every sixth fault; the others, and those that build the runtime, take minutes."""
    return [
        pytest.param(name, marks=[] if at % 6 == 0 and name not in RUNTIME_FAULTS else _LONG)
        for at, name in enumerate(FAULTS)
    ]


@pytest.mark.parametrize("name", some_now())
def test_caught(workshop: Workshop, tmp_path: Path, name: str) -> None:
    release = workshop.faulty(name, tmp_path / "release")
    # What the quick verification finds needs no other.
    for quick in (True, False):
        try:
            result = workshop.verify(release, quick=quick)
        except LibraError as refused:
            code = refused.exit_code
        else:
            code = result.exit_code
        if code in (ExitCode.PARITY, ExitCode.INTEGRITY):
            return
    pytest.fail(f"not caught: {name}")


def test_a_release_made_the_same_way_without_a_fault_passes(
    workshop: Workshop, tmp_path: Path
) -> None:
    release = workshop.make(workshop.case("none"), tmp_path / "release")
    assert workshop.verify(release).exit_code is ExitCode.OK


@pytest.mark.parametrize(("seed", "samples"), [(0, 4), (1, 12), (2, 30)])
def test_no_false_alarm(workshop: Workshop, seed: int, samples: int) -> None:
    result = workshop.verify(workshop.release, seed=seed, samples=samples)
    assert result.exit_code is ExitCode.OK


@pytest.mark.parametrize("name", REBUILDS)
def test_no_false_alarm_where_a_graph_is_written_another_way(
    workshop: Workshop, tmp_path: Path, name: str
) -> None:
    case = workshop.case("none")
    before = case.planner.SerializeToString(), case.refiner.SerializeToString()
    REBUILDS[name](case)
    assert before != (case.planner.SerializeToString(), case.refiner.SerializeToString())
    result = workshop.verify(workshop.make(case, tmp_path / "release"))
    assert [check for check in result.checks if check.verdict != "pass"] == []


def test_no_false_alarm_in_the_other_form(workshop: Workshop, tmp_path: Path) -> None:
    release = workshop.compiled(tmp_path / "release", seed=1, form="unrolled")
    assert workshop.verify(release, seed=101).exit_code is ExitCode.OK


@pytest.mark.parametrize("name", PLACES)
def test_bisect_names_the_layer_and_the_step(workshop: Workshop, tmp_path: Path, name: str) -> None:
    release = workshop.faulty(name, tmp_path / "release")
    (culprit,) = workshop.culprits(release, tmp_path / "out")
    graph, step, words = PLACES[name]
    assert (culprit.graph, culprit.step) == (graph, step)
    assert words in str(culprit)


def test_bisect_finds_nothing_in_a_good_release(workshop: Workshop, tmp_path: Path) -> None:
    assert workshop.culprits(workshop.release, tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


def test_repro_runs_under_polygraphy(workshop: Workshop, tmp_path: Path) -> None:
    release = workshop.faulty("scale off by two", tmp_path / "release")
    words = ["verify", str(release), "--checkpoint", str(workshop.checkpoint), "--samples", "4"]
    words += ["--cache", str(workshop.cache), "--bisect", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(program.app, words)
    assert done.exit_code == int(ExitCode.PARITY)
    assert "refiner.blocks.0.mlp.0" in json.loads(done.stdout)["result"]["first_wrong"][0]
    repro = tmp_path / "out/refiner"
    command = [sys.executable, "-c", "from polygraphy.tools import main; main()"]
    command += ["run", "repro.onnx", "--onnxrt", "--load-inputs", "inputs.json"]
    ran = subprocess.run(command, cwd=repro, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "step 0" in (repro / "README.txt").read_text()
