"""Releases of earlier libra-edges go on loading, inspecting, verifying and replaying."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from libra_edge.binding.policy import Policy
from libra_edge.bundle.verify import Release, open_release
from libra_edge.cli import app as program
from libra_edge.parity.golden import read_golden
from libra_edge.runtime.build import onnxruntime_library

HERE = Path(__file__).parent
ORT = "lib/libonnxruntime.so"
IDS = {
    "0.1.0/fp32": "ef961112434e242e52448abc8b4ce94809539dbfd70fd0fd65d51903dcd8d288",
    "0.1.0/int8": "36e60819d8adf9d4f6b802a0ed4319c9973f11ac9863d9fd02b0db08c29b15ef",
}
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the kept releases are for x86-64"
)


def _download(version: str, folder: Path) -> Path:
    """ONNX Runtime's library of another version than the installed one."""
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    subprocess.run([*command, f"onnxruntime=={version}"], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return onnxruntime_library(folder / "onnxruntime")


@pytest.fixture(scope="module", params=IDS)
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kept release, whole again."""
    folder = tmp_path_factory.mktemp("kept")
    path = folder / "release"
    shutil.copytree(HERE / request.param, path)
    manifest = json.loads((path / "manifest.json").read_bytes())
    library = onnxruntime_library()
    if hashlib.sha256(library.read_bytes()).hexdigest() != manifest["members"][ORT]["sha256"]:
        library = _download(manifest["runtime"]["onnxruntime_version"], folder / "wheel")
    shutil.copyfile(library, path / ORT)
    assert open_release(path).manifest.release_id == IDS[request.param]
    return path


def run(*words: object) -> tuple[int, dict[str, object]]:
    result = CliRunner().invoke(program.app, [*map(str, words), "--json"])
    body = json.loads(result.stdout)
    assert "result" in body, body
    return result.exit_code, body["result"]


def rows(result: dict[str, object]) -> list[dict[str, str]]:
    """The checks of a verification."""
    checks = result["checks"]
    assert isinstance(checks, list)
    return checks


def source(kept: Path, name: str) -> Path:
    """What a kept release was made of."""
    made_by = json.loads((kept / "manifest.json").read_bytes())["tools"]["libra-edge"]
    return HERE / made_by / name


def test_it_inspects(kept: Path) -> None:
    code, result = run("inspect", kept)
    assert code == 0
    assert result["release_id"] in IDS.values()


def test_it_loads_and_replays(kept: Path) -> None:
    release: Release = open_release(kept)
    golden = read_golden(release)
    with Policy(kept) as policy:
        for i, intent in enumerate(golden["intent"]):
            seen = golden["images"][i], golden["state"][i]
            planned, _ = policy.plan(seen[0], golden["instruction"][i], seen[1])
            np.testing.assert_array_equal(planned, intent)
            chunk = intent[: release.manifest.policy.chunk]
            actions = policy.refine(*seen, chunk, golden["noise"][i])
            np.testing.assert_allclose(actions, golden["actions"][i], atol=0.02)


def test_it_verifies_by_itself(kept: Path) -> None:
    code, result = run("verify", kept, "--golden-only")
    assert code == 0
    assert {check["verdict"] for check in rows(result)} == {"pass"}


def test_it_verifies_against_its_checkpoint(kept: Path, tmp_path: Path) -> None:
    words = ["verify", kept, "--checkpoint", source(kept, "checkpoint"), "--cache", tmp_path]
    if "int8" in json.loads((kept / "manifest.json").read_bytes())["recipe"]:
        words += ["--calibrate", source(kept, "calibration")]
    _, result = run(*words, "--samples", 24)
    checks = rows(result)
    assert not [check for check in checks if check["verdict"] == "fail"]
    assert {"PyTorch policy", "engine", "C ABI"} <= {
        side for check in checks for side in check["stage"].split(" vs ")
    }
