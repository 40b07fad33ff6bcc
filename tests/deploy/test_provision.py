"""A release becomes usable here only after its golden vectors came out right here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from libra_edge.bundle.compatibility import CPU, this_device
from libra_edge.bundle.manifest import ReleaseFacts
from libra_edge.bundle.pack import write_release
from libra_edge.bundle.verify import Release, verify_integrity
from libra_edge.cli import app as program
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.deploy import provision as deploy
from libra_edge.deploy.provision import provision
from libra_edge.errors import ExitCode, IncompatibleError, IntegrityError, ParityError
from tests.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("provision")
    checkpoint = write_tiny_checkpoint(folder / "checkpoint")
    request = Request(checkpoint, out=folder / "release", cache=folder / "cache", samples=8)
    compile_checkpoint(request)
    return folder / "release"


def changed(release: Path, out: Path, files: Mapping[str, bytes] = {}, **facts: Any) -> Path:
    """A release, whole again, of other facts or members."""
    manifest = verify_integrity(release)
    body = manifest.model_dump(mode="json", exclude={"members"}) | facts
    members: dict[str, Path | bytes] = {name: release / name for name in manifest.members}
    write_release(out, ReleaseFacts.model_validate(body), members | dict(files))
    return out


GPU = {
    "device": {"compute_capability": "8.7", "memory_bytes": 2**30, "versions": {}},
    "provision": {"kind": "tensorrt", "provider": "TensorrtExecutionProvider", "options": {}},
}


def test_a_release_becomes_usable_once(release: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    first = provision(release, cache=tmp_path, on_stage=stages.append)
    assert first.built
    assert {check.verdict for check in first.checks} == {"pass"}
    assert any(check.stage == "C ABI vs golden vectors" for check in first.checks)
    assert stages.index("build") < stages.index("C ABI vs golden vectors")
    mark = json.loads((first.folder / deploy.MARK).read_text())
    assert mark["fingerprint"] == first.fingerprint
    again = provision(release, cache=tmp_path)
    assert not again.built
    assert again.folder == first.folder


@pytest.mark.parametrize("name", ["planner.onnx", "refiner.onnx", deploy.MARK])
def test_damage_is_found_and_built_again(release: Path, tmp_path: Path, name: str) -> None:
    done = provision(release, cache=tmp_path)
    whole = (done.folder / name).read_bytes()
    (done.folder / name).write_bytes(whole[:-3])
    assert provision(release, cache=tmp_path).built
    assert (done.folder / name).read_bytes() == whole
    (done.folder / name).unlink()
    assert provision(release, cache=tmp_path).built


def test_everything_that_engines_depend_on_is_in_the_fingerprint(release: Path) -> None:
    manifest = verify_integrity(release)
    plain, device = deploy.PlainGraphs("1.31.1"), this_device()

    class Other(deploy.PlainGraphs):
        provider = "OtherExecutionProvider"

    members = dict(manifest.members)
    members["engines/refiner.onnx"] = members["engines/planner.onnx"]
    keys = {
        deploy.fingerprint(manifest, plain, device),
        deploy.fingerprint(manifest, deploy.PlainGraphs("1.32.0"), device),
        deploy.fingerprint(manifest, Other("1.31.1"), device),
        deploy.fingerprint(manifest, plain, replace(device, versions={"driver": "590.1"})),
        deploy.fingerprint(manifest, plain, replace(device, versions={"driver": "590.2"})),
        deploy.fingerprint(manifest, plain, replace(device, compute_capability="8.7")),
        deploy.fingerprint(manifest, plain, replace(device, arch="aarch64-linux-gnu")),
        deploy.fingerprint(manifest.model_copy(update={"members": members}), plain, device),
    }
    assert len(keys) == 8
    assert deploy.fingerprint(manifest, plain, device) in keys, "and nothing else"


def test_wrong_golden_vectors_are_never_marked_usable(release: Path, tmp_path: Path) -> None:
    actions = np.load(release / "golden/actions.npy")
    path = tmp_path / "actions.npy"
    np.save(path, actions + np.float32(0.05))
    wrong = changed(release, tmp_path / "wrong", {"golden/actions.npy": path.read_bytes()})
    with pytest.raises(ParityError, match="golden-replay-failed") as caught:
        provision(wrong, cache=tmp_path / "cache")
    assert caught.value.exit_code is ExitCode.PARITY
    assert not list((tmp_path / "cache").rglob(deploy.MARK))
    with pytest.raises(ParityError):
        provision(wrong, cache=tmp_path / "cache")


def test_a_builder_that_fails_leaves_nothing(release: Path, tmp_path: Path) -> None:
    class Broken:
        provider = "BrokenExecutionProvider"

        def version(self) -> str:
            return "1"

        def build(self, release: Release, folder: Path) -> None:
            (folder / "planner.onnx").write_bytes(b"half")
            raise RuntimeError("out of memory")

    broken = Broken()
    with pytest.raises(RuntimeError):
        provision(release, provider=broken.provider, builders=[broken], cache=tmp_path)
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".")]


def test_an_engine_for_a_gpu_is_not_taken_for_the_cpu_in_silence(
    release: Path, tmp_path: Path
) -> None:
    robot = changed(release, tmp_path / "robot", **GPU)
    with pytest.raises(IncompatibleError, match="tensorrt-missing") as caught:
        provision(robot, cache=tmp_path / "cache")
    assert f"--provider {CPU}" in caught.value.remedy
    # On the CPU it is read whole, and its target is known to build nothing on the robot.
    with pytest.raises(ParityError, match="has no such"):
        provision(robot, provider=CPU, cache=tmp_path / "cache")


def test_a_release_that_does_not_fit_is_refused_before_it_is_built(
    release: Path, tmp_path: Path
) -> None:
    class Never(deploy.PlainGraphs):
        provider = "TensorrtExecutionProvider"

        def build(self, release: Release, folder: Path) -> None:
            raise AssertionError("built")

    robot = changed(release, tmp_path / "robot", **GPU)
    with pytest.raises(IncompatibleError, match="provider-unavailable"):
        provision(robot, builders=[Never("1")], cache=tmp_path / "cache")
    other = replace(this_device(), arch="aarch64-linux-gnu")
    with pytest.raises(IncompatibleError, match="arch-mismatch"):
        provision(release, device=other, cache=tmp_path / "cache")
    random = changed(release, tmp_path / "random", random_weights=True)
    with pytest.raises(IncompatibleError, match="random-weights"):
        provision(random, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_changed_release_is_refused(release: Path, tmp_path: Path) -> None:
    copy = changed(release, tmp_path / "copy")
    (copy / "engines/planner.onnx").write_bytes(b"other")
    with pytest.raises(IntegrityError):
        provision(copy, cache=tmp_path / "cache")


def test_command(release: Path, tmp_path: Path) -> None:
    words = ["provision", str(release), "--cache", str(tmp_path)]
    first = CliRunner().invoke(program.app, words)
    assert first.exit_code == 0, first.stderr
    assert "built and checked here" in first.stdout.splitlines()[-1]
    again = CliRunner().invoke(program.app, [*words, "--json"])
    assert json.loads(again.stdout)["result"]["built"] is False
