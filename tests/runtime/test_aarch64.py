"""The cross-built runtime under qemu: the same actions as on x86-64.

Needs qemu-aarch64, an aarch64 C library (Debian: qemu-user, libc6-arm64-cross,
libstdc++6-arm64-cross) and ONNX Runtime's aarch64 wheel, which pip downloads once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from libra_edge.runtime import build
from tests.runtime import native_build
from tests.runtime import tiny_release as tiny
from tests.runtime.agents import UNSIGNED, Robot

pytestmark = pytest.mark.long
TRIPLE = "aarch64-linux-gnu"
LIBC = Path("/usr") / TRIPLE / "lib"
# Without these ONNX Runtime's CPU detection crashes or crawls under qemu.
CPU = ["-cpu", "cortex-a76"]
CPUINFO = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n"
STEPS = 3 * tiny.L


@pytest.fixture(scope="module")
def onnxruntime() -> Path:
    """The aarch64 libonnxruntime.so."""
    folder = build.default_cache_dir().parent / "aarch64"
    version = build.onnxruntime_version(build.onnxruntime_library())
    package = folder / version
    if not package.is_dir():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
        command += ["--only-binary=:all:", "--platform", "manylinux_2_28_aarch64"]
        command += [f"--python-version={sys.version_info.major}.{sys.version_info.minor}"]
        result = subprocess.run([*command, f"onnxruntime=={version}"], capture_output=True)
        wheels = sorted(folder.glob(f"onnxruntime-{version}-*aarch64.whl"))
        if result.returncode != 0 or not wheels:
            pytest.skip("the aarch64 wheel of onnxruntime cannot be downloaded")
        zipfile.ZipFile(wheels[0]).extractall(package)
    return build.onnxruntime_library(package / "onnxruntime")


@pytest.fixture(scope="module")
def sysroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("qemu-aarch64 is not installed (Debian: qemu-user)")
    if not (LIBC / "libstdc++.so.6").exists():
        pytest.skip(f"{LIBC} has no libstdc++ (Debian: libstdc++6-arm64-cross)")
    root = tmp_path_factory.mktemp("sysroot")
    (root / "lib").symlink_to(LIBC)
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(CPUINFO)
    return root


@pytest.fixture(scope="module")
def arm_release(release: Path, onnxruntime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arm")
    copy = tiny.link_release(release, folder / "release")
    library = build.build_library(folder / "lib", TRIPLE)
    tiny.replace(copy / "lib/liblibra_edge.so", library.read_bytes())
    tiny.replace(copy / "lib/libonnxruntime.so", onnxruntime.read_bytes())
    content = tiny.manifest()
    content["runtime"]["arch"] = TRIPLE
    tiny.seal(copy, content)
    return copy


def compiled(name: str, release: Path, triple: str, folder: Path) -> Path:
    out = folder / f"{name}-{triple}"
    native_build.zig(
        *("cc", "-target", f"{triple}.2.35", "-std=c11", "-O1", *native_build.STRICT),
        *(f"-I{release / 'include'}", str(native_build.C_SOURCES / f"{name}.c")),
        *(str(release / "lib/liblibra_edge.so"), "-lm", "-o", str(out)),
    )
    return out


def emulated(program: Path, sysroot: Path, release: Path, *arguments: str) -> str:
    libraries = f"LD_LIBRARY_PATH={release / 'lib'}:/lib"
    command = ["qemu-aarch64", *CPU, "-L", str(sysroot), "-E", libraries, str(program)]
    result = subprocess.run(
        [*command, str(release), *arguments], capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


def actions(text: str) -> tuple[list[str], np.ndarray]:
    rows = [line.split() for line in text.splitlines()]
    return [row[0] for row in rows], np.array([row[1:] for row in rows], dtype=np.float64)


def test_gives_the_actions_of_x86(
    release: Path, arm_release: Path, sysroot: Path, tmp_path: Path
) -> None:
    native = compiled("actions", release, "x86_64-linux-gnu", tmp_path)
    here = subprocess.run(
        [native, release, str(STEPS)],
        env={**os.environ, "LD_LIBRARY_PATH": str(release / "lib")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    there = emulated(
        compiled("actions", arm_release, TRIPLE, tmp_path), sysroot, arm_release, str(STEPS)
    )
    (modes, expected), (arm_modes, found) = actions(here), actions(there)
    assert modes == arm_modes == ["sync"] * STEPS + ["async"] * STEPS
    assert (np.abs(found - expected) <= 1e-4 * (tiny.UPPER - tiny.LOWER)).all()
    assert np.ptp(expected, axis=0).min() > 0.1


def test_replays_the_golden_vectors(arm_release: Path, sysroot: Path, tmp_path: Path) -> None:
    program = compiled("golden", arm_release, TRIPLE, tmp_path)
    assert emulated(program, sysroot, arm_release, "1e-5", "1e-5").endswith("PASS\n")


@dataclass(frozen=True)
class ArmRobot(Robot):
    """The agent for a robot's processor, run by qemu."""

    sysroot: Path

    def run(
        self, *words: str, feed: bytes = b"", inject: str = "", trace: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        command = ["qemu-aarch64", *CPU, "-L", str(self.sysroot), str(self.agent), *words]
        command += ["--root", str(self.root), "--json"]
        return subprocess.run(command, input=feed, capture_output=True, timeout=300)


def test_the_agent_of_a_robot(arm_release: Path, sysroot: Path, tmp_path: Path) -> None:
    """`status`, `install`, `verify`, `provision`, `activate` and what it refuses."""
    agent = build.build_agent(tmp_path / "agent", TRIPLE)
    robot = ArmRobot(agent, tmp_path / "robot", sysroot)
    assert robot.ask("status")["architecture"] == TRIPLE
    # Emulated, it is far slower than the robot: what is asked here is whether it is the same.
    slow = tiny.link_release(arm_release, tmp_path / "slow")
    content = tiny.manifest()
    content["runtime"]["arch"], content["embodiment"]["control_hz"] = TRIPLE, 0.1
    tiny.seal(slow, content)
    robot.ask("install", str(slow), UNSIGNED)
    robot.ask("verify", "--slot", "a")
    assert robot.ask("provision")["self_test"]["golden"] == tiny.GOLDEN
    robot.ask("activate")
    robot.ask("mark-good")
    assert robot.current == "a"
    other = tiny.link_release(arm_release, tmp_path / "other")
    tiny.seal(other, tiny.manifest())
    assert robot.refused("install", str(other), UNSIGNED)[0] == 4, "it is for x86-64"
    changed = bytearray((robot.root / "slots/a/engines/refiner.onnx").read_bytes())
    changed[100] ^= 1
    tiny.replace(robot.root / "slots/a/engines/refiner.onnx", bytes(changed))
    assert robot.refused("verify") == (3, "member-changed")
