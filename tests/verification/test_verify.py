"""`verify_release` on a compiled tiny policy: it passes, and whatever is changed is found."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from libra_edge.bundle.compatibility import this_device
from libra_edge.bundle.manifest import Manifest, ReleaseFacts, parse_manifest
from libra_edge.bundle.pack import pack_release
from libra_edge.cli import app as program
from libra_edge.compiler.graphs.export import from_bytes, to_bytes
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.errors import ExitCode, InputError, IntegrityError
from libra_edge.parity.golden import GOLDEN
from libra_edge.verification.recompile import AGAINST_CHECKPOINT, STAGES_BETWEEN
from libra_edge.verification.request import QUICK_SAMPLES
from libra_edge.verification.request import Request as VerifyRequest
from libra_edge.verification.result import Verification
from libra_edge.verification.verify import NOT_QUICK, verify_release
from tests.compiler.quantization.test_calibration_data import episodes, write
from tests.rewriting import rewrite
from tests.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    write_tiny_checkpoint(folder / "checkpoint")
    compile_checkpoint(
        Request(folder / "checkpoint", out=folder / "release", cache=folder / "cache")
    )
    return folder


def verify(
    work: Path,
    release: Path,
    on_stage: Callable[[str], None] = lambda _: None,
    **options: object,
) -> Verification:
    settings = {"checkpoint": work / "checkpoint", "cache": work / "cache", "samples": 10}
    return verify_release(VerifyRequest(release, **{**settings, **options}), on_stage)


def failed(result: Verification) -> set[str]:
    return {check.stage for check in result.checks if check.verdict == "fail"}


def altered(work: Path, out: Path, members: dict[str, bytes], **changes: object) -> Path:
    """A release with other members and a manifest that fits them: only parity can tell."""
    source = work / "release"
    facts = Manifest.model_validate_json((source / "manifest.json").read_bytes())
    files: dict[str, Path | bytes] = {name: source / name for name in facts.members}
    fields = {name: getattr(facts, name) for name in ReleaseFacts.model_fields}
    rewrite(out, ReleaseFacts(**(fields | changes)), files | members)
    return out


def perturbed(model: bytes) -> bytes:
    changed = from_bytes(model)
    largest = max(changed.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    array = numpy_helper.to_array(largest) * np.float32(1.01)
    largest.CopyFrom(numpy_helper.from_array(array, largest.name))
    return to_bytes(changed)


def test_a_release_is_its_policy(work: Path) -> None:
    result = verify(work, work / "release")
    assert result.exit_code is ExitCode.OK
    assert {check.stage for check in result.checks} == {
        "integrity",
        GOLDEN,
        "checkpoint",
        "split vs PyTorch policy",
        "exported vs split",
        "fused vs exported",
        "engine vs fused",
        "C ABI vs engine",
        "C ABI vs PyTorch policy, end to end",
        "C ABI steps vs reference executor",
        "C ABI on edge observations",
        "C ABI vs PyTorch policy, every word",
        "C ABI vs PyTorch policy, edge inputs",
        "claims of the manifest",
        "graphs, as written vs fused",
        "native members vs this toolkit's",
        "native library vs reference",
    }
    assert all(check.samples == 10 for check in result.checks if " vs " in check.stage[8:12])


def test_one_file_verifies_like_the_directory(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pack_release(work / "release", tmp_path / "one.libra")
    result = verify(work, tmp_path / "one.libra", golden_only=True)
    assert result.exit_code is ExitCode.OK


@pytest.mark.parametrize("member", ["engines/refiner.onnx", "lib/liblibra_edge.so"])
def test_a_changed_byte_stops_everything(work: Path, tmp_path: Path, member: str) -> None:
    shutil.copytree(work / "release", tmp_path / "release")
    content = bytearray((tmp_path / "release" / member).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "release" / member).write_bytes(content)
    with pytest.raises(IntegrityError, match="member-changed") as caught:
        verify(work, tmp_path / "release")
    assert caught.value.exit_code is ExitCode.INTEGRITY


@pytest.mark.parametrize("graph", ["planner", "refiner"])
def test_another_weight_in_an_engine_fails(work: Path, tmp_path: Path, graph: str) -> None:
    name = f"engines/{graph}.onnx"
    model = perturbed((work / "release" / name).read_bytes())
    release = altered(work, tmp_path / "release", {name: model})
    result = verify(work, release)
    assert result.exit_code is ExitCode.PARITY
    assert {GOLDEN, "engine vs fused", "C ABI vs PyTorch policy, end to end"} <= failed(result)


def test_other_golden_vectors_fail_without_a_checkpoint(work: Path, tmp_path: Path) -> None:
    actions = np.load(work / "release/golden/actions.npy")
    stream = io.BytesIO()
    np.save(stream, actions + np.float32(0.001))
    release = altered(work, tmp_path / "release", {"golden/actions.npy": stream.getvalue()})
    result = verify(work, release, golden_only=True)
    assert result.exit_code is ExitCode.PARITY
    assert failed(result) == {GOLDEN}


@pytest.mark.parametrize(
    "array", [np.zeros((0, 3, 3), np.float32), np.zeros((8, 3, 3)), np.zeros((8, 9), np.float32)]
)
def test_golden_vectors_that_do_not_fit_the_engines(
    work: Path, tmp_path: Path, array: np.ndarray
) -> None:
    stream = io.BytesIO()
    np.save(stream, array)
    release = altered(work, tmp_path / "release", {"golden/noise.npy": stream.getvalue()})
    with pytest.raises(IntegrityError, match="golden-invalid"):
        verify(work, release, golden_only=True)


def test_golden_vectors_are_never_unpickled(work: Path, tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    release = altered(work, tmp_path / "release", {"golden/noise.npy": stream.getvalue()})
    with pytest.raises(IntegrityError, match="golden-invalid"):
        verify(work, release, golden_only=True)


def test_without_a_checkpoint_the_gap_is_listed(work: Path) -> None:
    result = verify(work, work / "release", checkpoint=None)
    assert result.exit_code is ExitCode.NOT_MEASURED
    gaps = [check.stage for check in result.checks if check.verdict == "not measured"]
    assert gaps == [AGAINST_CHECKPOINT]


def test_another_checkpoint_fails(work: Path, tmp_path: Path) -> None:
    other = write_tiny_checkpoint(tmp_path / "other", seed=1)
    result = verify(work, work / "release", checkpoint=other)
    assert result.exit_code is ExitCode.PARITY
    assert failed(result) == {"checkpoint"}
    assert result.count("not measured") == 1


def test_a_machine_without_the_architecture_measures_nothing_in_silence(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(this_device(), arch="riscv64-linux-gnu")
    for module in ("subject", "open_engines"):
        monkeypatch.setattr(f"libra_edge.verification.{module}.device_for", lambda _: other)
    result = verify(work, work / "release", golden_only=True)
    assert result.exit_code is ExitCode.NOT_MEASURED
    gap = next(check for check in result.checks if check.verdict == "not measured")
    assert "riscv64-linux-gnu" in gap.note
    simulated = [check for check in result.checks if check.stage.startswith("graphs, simulated")]
    assert {check.verdict for check in simulated} == {"pass"}, "the graphs still run"


def test_command(work: Path, tmp_path: Path) -> None:
    words = ["verify", str(work / "release"), "--golden-only", "--json"]
    result = CliRunner().invoke(program.app, [*words, "--junit", str(tmp_path / "junit.xml")])
    assert result.exit_code == 0, result.stderr
    body = json.loads(result.stdout)
    assert body["result"]["failed"] == 0
    assert (tmp_path / "junit.xml").read_text().startswith("<?xml")
    gap = CliRunner().invoke(program.app, ["verify", str(work / "release"), "--samples", "2"])
    assert gap.exit_code == int(ExitCode.NOT_MEASURED)
    assert gap.stdout.splitlines()[-1].endswith("0 failed, 1 not measured")
    assert "not measured: release vs checkpoint" in gap.stdout


@pytest.fixture(scope="module")
def swapped(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release with a planner that is one percent off."""
    name = "engines/planner.onnx"
    model = perturbed((work / "release" / name).read_bytes())
    return altered(work, tmp_path_factory.mktemp("swapped") / "release", {name: model})


def test_quick_compiles_nothing_and_says_what_it_leaves_out(work: Path, tmp_path: Path) -> None:
    told: list[str] = []
    result = verify(
        work, work / "release", samples=None, quick=True, cache=tmp_path, on_stage=told.append
    )
    assert result.exit_code is ExitCode.OK
    assert not any(tmp_path.iterdir()), "nothing was compiled"
    assert not [stage for stage in told if stage.startswith(("export", "fuse"))]
    assert {check.stage for check in result.checks} == {
        "integrity",
        GOLDEN,
        "checkpoint",
        "C ABI vs PyTorch policy",
        "C ABI vs PyTorch policy, end to end",
        "C ABI steps vs reference executor",
        "C ABI on edge observations",
        "C ABI vs PyTorch policy, every word",
        "C ABI vs PyTorch policy, edge inputs",
        "claims of the manifest",
    }
    assert result.left_out == (STAGES_BETWEEN, *NOT_QUICK)
    assert (result.quick, result.samples) == (True, QUICK_SAMPLES)
    assert all(check.samples > 0 for check in result.checks)


def test_quick_fails_and_misses_like_the_full_one(work: Path, swapped: Path) -> None:
    result = verify(work, swapped, quick=True)
    assert result.exit_code is ExitCode.PARITY
    assert "C ABI vs PyTorch policy" in failed(result)
    gap = verify(work, work / "release", quick=True, checkpoint=None)
    assert gap.exit_code is ExitCode.NOT_MEASURED


def test_quick_on_the_command_line(work: Path, tmp_path: Path) -> None:
    words = ["verify", str(work / "release"), "--checkpoint", str(work / "checkpoint"), "--quick"]
    result = CliRunner().invoke(program.app, [*words, "--junit", str(tmp_path / "junit.xml")])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith("(quick: not a release gate)")
    assert "not compared (--quick): latency" in result.stdout
    assert f'skipped="{len(NOT_QUICK) + 1}"' in (tmp_path / "junit.xml").read_text()
    both = CliRunner().invoke(program.app, [*words, "--golden-only"])
    assert both.exit_code == int(ExitCode.USAGE)


def test_stricter_gates_fail_what_the_recipe_passes(work: Path, tmp_path: Path) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text("[gates]\naction = 1e-12\n")
    result = verify(work, work / "release", gates=gates)
    assert result.exit_code is ExitCode.PARITY
    assert {c.metric for c in result.checks if c.verdict == "fail"} == {"action error / range"}
    assert [(change.name, change.loose) for change in result.gates] == [("action", False)]


def test_looser_gates_pass_only_with_leave_and_in_red(
    work: Path, swapped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text("[gates]\ntokens = 0.01\nmargin = 1e6\naction = 1.0\n")
    words = ["verify", str(swapped), "--golden-only", "--gates", str(gates)]
    refused = CliRunner().invoke(program.app, words)
    assert refused.exit_code == int(ExitCode.USAGE)
    assert "gates-loose" in refused.stderr
    monkeypatch.setenv("FORCE_COLOR", "1")
    passed = CliRunner().invoke(program.app, [*words, "--allow-loose"])
    assert passed.exit_code == 0
    (line,) = [line for line in passed.stdout.splitlines() if "gate here: margin" in line]
    assert "\x1b[1;31m" in line
    assert "LOOSE GATES: tokens, action, margin" in passed.stdout
    body = json.loads(CliRunner().invoke(program.app, [*words, "--allow-loose", "--json"]).stdout)
    assert [gate["loose"] for gate in body["result"]["gates"]] == [True] * 3


def test_compiling_under_other_gates_is_in_the_manifest(work: Path, tmp_path: Path) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text("[gates]\naction = 0.5\nmargin = 1e-4\n")
    request = Request(
        work / "checkpoint", out=tmp_path / "loose", cache=work / "cache", gates=gates
    )
    with pytest.raises(InputError, match="gates-loose"):
        compile_checkpoint(request)
    assert not (tmp_path / "loose").exists()
    compiled = compile_checkpoint(replace(request, allow_loose=True))
    changes = [(change.name, change.loose) for change in compiled.manifest.gates]
    assert changes == [("action", True), ("margin", False)]
    assert parse_manifest((tmp_path / "loose/manifest.json").read_bytes()) == compiled.manifest
    shown = CliRunner().invoke(program.app, ["inspect", str(tmp_path / "loose")])
    assert "gate of this release: action 0.5, the recipe's is 0.0001 (LOOSE)" in shown.stdout
    result = verify(work, tmp_path / "loose")
    assert result.gates == (), "a release does not loosen the gates it is verified by"
    assert result.exit_code is ExitCode.OK
    assert parse_manifest((work / "release/manifest.json").read_bytes()).gates == ()


def test_observations_are_read_as_the_checkpoint_says(work: Path, tmp_path: Path) -> None:
    write(tmp_path / "data", episodes(3))
    body = parse_manifest((work / "release/manifest.json").read_bytes()).embodiment
    swapped = body.model_copy(update={"cameras": body.cameras[::-1]})
    release = altered(work, tmp_path / "release", {}, embodiment=swapped)
    result = verify(work, release, data=tmp_path / "data")
    assert result.exit_code is ExitCode.PARITY
    assert failed(result) == {"checkpoint"}
    trajectory = result.behind.trajectory
    assert trajectory is not None
    assert trajectory.episodes == 3
    assert [run.engines for run in trajectory.runs] == ["release", "release", "policy"]


def test_what_lies_behind_the_checks(work: Path) -> None:
    behind = verify(work, work / "release").behind
    assert behind.denoising is not None
    assert [step.step for step in behind.denoising.steps] == [0, 1, 2, 3]
    assert behind.denoising.samples == 10
    assert all(0 <= step.mean.value <= step.max < 1e-5 for step in behind.denoising.steps)
    assert behind.trajectory is None, "made-up observations are no trajectories"
    body = json.loads(json.dumps(behind.to_json()))
    assert body["planner"]["samples"] == 10
    assert len(body["latencies"]) == 2


FIELD = """
import sys
from pathlib import Path
for name in ("torch", "onnx", "onnxruntime", "onnxsim", "pyarrow", "av", "safetensors"):
    sys.modules[name] = None
from libra_edge.verification.request import Request
from libra_edge.verification.verify import verify_release
sys.exit(int(verify_release(Request(Path(sys.argv[1]), golden_only=True)).exit_code))
"""


def test_a_field_laptop_replays_golden_vectors_without_the_compiler(work: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", FIELD, work / "release"]
    assert subprocess.run(command, env=environment, check=False).returncode == 0
