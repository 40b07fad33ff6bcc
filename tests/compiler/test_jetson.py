"""Releases for a Jetson, built here: graphs, native code, and the golden replay under qemu.

Needs what `tests/runtime/test_aarch64.py` needs: qemu-aarch64, an aarch64 C library and ONNX
Runtime's aarch64 wheel, which pip downloads once.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from libra_edge.bundle.compatibility import mismatches, needs_of, provisioned_needs, this_device
from libra_edge.bundle.verify import verify_integrity
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.deploy.provision import provision
from libra_edge.errors import IncompatibleError
from libra_edge.verification.request import Request as VerifyRequest
from libra_edge.verification.verify import verify_release
from tests.runtime import native_build
from tests.runtime.test_aarch64 import CPU, CPUINFO, LIBC, TRIPLE
from tests.tiny import write_tiny_checkpoint

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jetson")
    write_tiny_checkpoint(folder / "checkpoint")
    return folder


@pytest.fixture(scope="module", params=["jetson-agx-orin", "agibot-g1"])
def release(work: Path, request: pytest.FixtureRequest) -> Path:
    out = work / request.param
    wanted = Request(
        work / "checkpoint",
        target=request.param,
        recipe="fp32",
        out=out,
        cache=work / "cache",
        samples=8,
    )
    compile_checkpoint(wanted)
    return out


def sysroot(folder: Path) -> Path:
    if shutil.which("qemu-aarch64") is None or not (LIBC / "libstdc++.so.6").exists():
        pytest.skip("qemu-user and libstdc++6-arm64-cross are not installed")
    if not folder.exists():
        (folder / "proc").mkdir(parents=True)
        (folder / "lib").symlink_to(LIBC)
        (folder / "proc/cpuinfo").write_text(CPUINFO)
    return folder


def test_it_says_what_the_robot_is_to_build(release: Path) -> None:
    manifest = verify_integrity(release)
    assert manifest.runtime.arch == TRIPLE
    assert manifest.provision is not None
    assert manifest.provision.kind == "tensorrt"
    assert manifest.device is not None
    assert manifest.device.compute_capability == "8.7"
    assert manifest.device.versions["tensorrt"] == "10.3"
    assert manifest.parity.verdict == "not measured"
    gaps = {c.stage for c in manifest.parity.checks if c.verdict == "not measured"}
    assert gaps == {"tensorrt engine vs fused", "C ABI"}
    assert needs_of(manifest).providers == {"CPUExecutionProvider"}
    assert provisioned_needs(manifest).providers == {"TensorrtExecutionProvider"}


def test_libraries_are_for_its_processor(release: Path) -> None:
    for name in ("liblibra_edge.so", "libonnxruntime.so"):
        header = (release / "lib" / name).read_bytes()[:20]
        assert header[:4] == b"\x7fELF"
        assert int.from_bytes(header[18:20], "little") == 183, "EM_AARCH64"


def test_this_machine_refuses_it_and_still_checks_its_graphs(release: Path) -> None:
    manifest = verify_integrity(release)
    assert "arch-mismatch" in {m.code for m in mismatches(needs_of(manifest), this_device())}
    with pytest.raises(IncompatibleError, match="arch-mismatch"):
        provision(release, provider="CPUExecutionProvider", cache=release.parent / "engines")
    result = verify_release(VerifyRequest(release, golden_only=True))
    verdicts = {check.stage: check.verdict for check in result.checks}
    assert verdicts["C ABI vs golden vectors"] == "not measured"
    assert verdicts["graphs, simulated vs golden vectors"] == "pass"


def test_it_replays_its_golden_vectors_on_its_processor(release: Path, work: Path) -> None:
    root = sysroot(work / "sysroot")
    program = work / f"golden-{release.name}"
    native_build.zig(
        *("cc", "-target", f"{TRIPLE}.2.35", "-std=c11", "-O1", *native_build.STRICT),
        *(f"-I{release / 'include'}", str(native_build.C_SOURCES / "golden.c")),
        *(str(release / "lib/liblibra_edge.so"), "-lm", "-o", str(program)),
    )
    libraries = f"LD_LIBRARY_PATH={release / 'lib'}:/lib"
    command = ["qemu-aarch64", *CPU, "-L", str(root), "-E", libraries, str(program), str(release)]
    run = subprocess.run([*command, "1e-4", "1e-4"], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert run.stdout.endswith("PASS\n")
