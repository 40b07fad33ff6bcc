"""A Jetson's own TensorRT, driven directly: built on the robot, opened where it matches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from libra_edge.deploy.tensorrt import LIBRARY
from tests.runtime import fake_tensorrt, native_build
from tests.runtime import tiny_release as tiny

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="the library that drives TensorRT is compiled on the robot: no C++ compiler here",
)
PROVISION = """
import json, sys
from libra_edge.deploy.tensorrt import TensorRt
from libra_edge.bundle.verify import open_release
from libra_edge.errors import LibraError
from pathlib import Path
release = open_release(sys.argv[1])
try:
    builder = TensorRt(release.manifest.provision.options)
    builder.build(release, Path(sys.argv[2]))
    print(json.dumps(["", builder.version()]))
except LibraError as error:
    print(json.dumps([error.code, error.fact]))
"""
RUN = """
import json, os, sys
import numpy as np
from libra_edge.binding.policy import Policy
from libra_edge.errors import LibraError
from libra_edge.policy.execution.noise import chunk_noise
from tests.runtime import tiny_release as tiny

rng = np.random.default_rng(5)
try:
    with Policy(sys.argv[1], engines_dir=sys.argv[2] or None, allow_failed=True) as policy:
        out = {"engine": vars(policy.engine("refiner"))}
        images, state = tiny.observation(rng)
        tokens = rng.integers(0, 9, tiny.T)
        intent, margin = policy.plan(images, tokens, state)
        noise = chunk_noise(3, 0, (tiny.H, tiny.D))
        actions = policy.refine(images, state, intent[: tiny.H], noise)
        out |= {"intent": intent.tolist(), "margin": margin.tolist(), "actions": actions.tolist()}
        policy.set_instruction(tokens)
        out["steps"] = []
        for _ in range(7):
            policy.observe(*tiny.observation(rng))
            action, info = policy.step()
            out["steps"].append([action.tolist(), info.state.name])
        os.environ["FAKE_TRT_FAULT"] = "run"
        policy.restart(0)
        policy.observe(*tiny.observation(rng))
        info = policy.step()[1]
        out["fault"] = [info.state.name, info.detail]
    print(json.dumps(out))
except LibraError as error:
    print(json.dumps([error.code, error.fact]))
"""


def run(code: str, *arguments: object, settings: Mapping[str, str]) -> Any:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FAKE_")}
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment | settings,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, (result.returncode, result.stderr[-3000:])
    return json.loads(result.stdout)


def manifest() -> dict[str, Any]:
    return tiny.manifest() | {
        "target": "jetson-agx-orin",
        "device": {
            "compute_capability": "8.7",
            "memory_bytes": 2**30,
            "versions": {"cuda": "12.6", "jetpack": "6.2", "tensorrt": "10.3"},
        },
        "provision": {
            "kind": "tensorrt",
            "provider": "TensorrtExecutionProvider",
            "options": {"version_compatible": "true"},
        },
    }


@pytest.fixture(scope="module")
def robot(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that leaves its engines to a robot with TensorRT."""
    release = tiny.make_release(tmp_path_factory.mktemp("jetson") / "release", library)
    tiny.seal(release, manifest())
    return release


@pytest.fixture(scope="module")
def built(robot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    code, _ = run(PROVISION, robot, folder, settings=fake_tensorrt.settings())
    assert code == ""
    return folder


def test_the_source_compiles_without_a_warning(tmp_path: Path) -> None:
    native_build.gxx(
        *("g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fPIC", "-c"),
        *(
            f"-I{fake_tensorrt.HERE / 'include'}",
            f"-I{native_build.build.SOURCE_ROOT / 'tensorrt'}",
        ),
        *(str(native_build.build.SOURCE_ROOT / "tensorrt/libra_trt.cc"), "-o", str(tmp_path / "o")),
    )


def test_it_is_built_and_marked_as_not_proven(built: Path) -> None:
    mark = json.loads((built / "usable.json").read_text())
    assert mark["proven"] is False
    assert set(mark["engines"]) == {"planner.engine", "refiner.engine", LIBRARY}
    assert mark["device"].startswith("Fake RTX")


def test_it_gives_what_the_cpu_gives_bit_for_bit(robot: Path, built: Path) -> None:
    on_gpu = run(RUN, robot, built, settings=fake_tensorrt.settings())
    on_cpu = run(RUN, robot, "", settings={})
    for name in ("intent", "margin", "actions", "steps"):
        assert on_gpu[name] == on_cpu[name]
    assert on_gpu["engine"]["provider"] == "TensorrtExecutionProvider"
    assert on_gpu["engine"]["status"] == "built here"
    assert on_gpu["engine"]["device"] == "Fake RTX"
    assert on_gpu["fault"][0] == "FAULT"
    assert "fallen off the bus" in on_gpu["fault"][1]


def test_what_it_refuses(robot: Path, built: Path, tmp_path: Path) -> None:
    def copy(name: str, file: str = "", content: bytes = b"") -> Path:
        to = Path(shutil.copytree(built, tmp_path / name))
        if file:
            (to / file).write_bytes(content)
        return to

    good = fake_tensorrt.settings()
    engine = (built / "refiner.engine").read_bytes()
    cases = [
        (copy("flipped", "refiner.engine", engine[:-1] + b"x"), {}, "integrity", "refiner.engine"),
        (copy("library", LIBRARY, b"other"), {}, "integrity", LIBRARY),
        (built, {"FAKE_GPU_CUDA": "12050"}, "driver-too-old", "12.6"),
        (built, {"FAKE_GPU_CC": "8.6"}, "wrong-device", "8.7"),
        (built, {"FAKE_GPU_INIT": "100"}, "no-device", "no GPU"),
        (built, {"FAKE_TRT_FAULT": "open"}, "engine", "not of this TensorRT"),
        (built, {"FAKE_TRT_FAULT": "run"}, "engine", "fallen off the bus"),
    ]
    for folder, settings, code, words in cases:
        found = run(RUN, robot, folder, settings=good | settings)
        assert isinstance(found, list), (folder, settings)
        assert (found[0], words in found[1]) == (code, True), found


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        ("trtexec", "tensorrt-missing"),
        ("header", "tensorrt-headers-missing"),
        ("compiler", "compiler-missing"),
        ("graph", "tensorrt-build-failed"),
    ],
)
def test_a_robot_that_cannot_build(robot: Path, tmp_path: Path, missing: str, code: str) -> None:
    settings = fake_tensorrt.settings()
    here = fake_tensorrt.installation()
    if missing == "trtexec":
        settings["PATH"] = os.environ["PATH"]
    elif missing == "header":
        settings["CPATH"] = str(tmp_path)
    elif missing == "compiler":
        settings["PATH"] = str(here / "bin")
    else:
        settings["FAKE_TRTEXEC_FAILS"] = "1"
    engines = tmp_path / "engines"
    engines.mkdir()
    found, fact = run(PROVISION, robot, engines, settings=settings)
    assert found == code, fact
    assert not (engines / "usable.json").exists()


def test_without_what_was_built_it_runs_its_graphs_on_the_cpu(robot: Path) -> None:
    assert run(RUN, robot, "", settings={})["engine"]["status"] == "graph"


def test_a_release_that_leaves_nothing_to_the_robot(release: Path, built: Path) -> None:
    found = run(RUN, release, built, settings=fake_tensorrt.settings())
    assert found[0] == "invalid-argument"
