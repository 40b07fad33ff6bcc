"""A release whose code takes its process down fails its verification, and nothing else."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from libra_edge.bundle.manifest import Manifest, ReleaseFacts
from libra_edge.errors import ExitCode
from libra_edge.runtime.build import onnxruntime_library
from libra_edge.verification.request import Request
from libra_edge.verification.verify import verify_release
from tests.rewriting import rewrite

KEPT = Path(__file__).parents[1] / "golden/0.1.0/fp32"
LIBRARY, ORT = "lib/liblibra_edge.so", "lib/libonnxruntime.so"
CONSTRUCTOR = """
#include <stdlib.h>
#include <unistd.h>
__attribute__((constructor)) static void begin(void) {{ {body} }}
"""
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the kept releases are for x86-64"
)


def release(out: Path, members: dict[str, bytes]) -> Path:
    """The kept release with other libraries, and a manifest that fits them."""
    facts = Manifest.model_validate_json((KEPT / "manifest.json").read_bytes())
    files: dict[str, Path | bytes] = {name: KEPT / name for name in facts.members if name != ORT}
    files[ORT] = onnxruntime_library()
    fields = {name: getattr(facts, name) for name in ReleaseFacts.model_fields}
    rewrite(out, ReleaseFacts(**fields), files | members)
    return out


def library(folder: Path, body: str) -> bytes:
    """A shared library that does something when it is loaded."""
    source, built = folder / "begin.c", folder / "begin.so"
    source.write_text(CONSTRUCTOR.format(body=body))
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", str(built), str(source)], check=True)
    return built.read_bytes()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("abort();", "SIGABRT"),
        ("_exit(0);", "exit code 0"),
        ("exit(0);", "exit code 0"),
        ("sleep(600);", "no answer within 20 s"),
        ("*(volatile int *)8 = 0;", "SIG"),
        ("", "does not open"),
    ],
)
def test_a_library_that_ends_its_process(tmp_path: Path, body: str, words: str) -> None:
    path = release(tmp_path / "release", {LIBRARY: library(tmp_path, body)})
    begin = time.monotonic()
    result = verify_release(Request(path, golden_only=True, time_limit_s=20))
    assert result.exit_code is ExitCode.PARITY
    (check,) = [check for check in result.checks if check.verdict == "fail"]
    assert (check.stage, check.metric) == ("golden vectors", "runs to its end")
    assert words in check.note
    assert time.monotonic() - begin < 150


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_truncated_onnxruntime(tmp_path: Path, share: float) -> None:
    whole = onnxruntime_library().read_bytes()
    path = release(tmp_path / "release", {ORT: whole[: int(share * len(whole))]})
    result = verify_release(Request(path, golden_only=True, time_limit_s=60))
    assert result.exit_code is ExitCode.PARITY
    assert "golden vectors" in {check.stage for check in result.checks if check.verdict == "fail"}


def test_a_graph_that_is_none(tmp_path: Path) -> None:
    path = release(tmp_path / "release", {"engines/refiner.onnx": b"\x08\x07 no graph"})
    result = verify_release(Request(path))
    assert result.exit_code is ExitCode.PARITY
    failed = {(check.stage, check.metric) for check in result.checks if check.verdict == "fail"}
    assert ("claims of the manifest", "refiner graph") in failed
    assert ("stages", "runs to its end") in failed
