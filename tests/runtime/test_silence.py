"""Nothing of ours looks up a name, opens a connection, or writes a file that nobody asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.runtime import native_build
from tests.runtime import tiny_release as tiny

ROOT = Path(__file__).parents[2]
# Long enough for ONNX Runtime's telemetry, where it is on, to look up its host.
SECONDS = "8"


@pytest.fixture(scope="module")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("watcher") / "watcher.so"
    native_build.zig(
        *("cc", *native_build.TARGET, "-std=c11", "-O1", *native_build.STRICT, "-fPIC", "-shared"),
        *(str(native_build.C_SOURCES / "watcher.c"), "-o", str(out)),
    )
    return out


def watch(watcher: Path, folder: Path, *command: str, **extra: str) -> tuple[Counter[str], str]:
    """What a command did by kind (`look-up`, `connect`, `socket`, `write`, `thread`); its output.

    Its environment is bare: ONNX Runtime keeps quiet where it sees that it is in a CI job.
    """
    log = folder / "log"
    environment = {
        **{"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)},
        **{"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        **{"LD_PRELOAD": str(watcher), "WATCHER_LOG": str(log), **extra},
    }
    result = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    lines = log.read_text().splitlines() if log.exists() else []
    kept = [line for line in lines if not line.endswith(("/dev/null", "/dev/tty"))]
    return Counter(line.split()[0] for line in kept), result.stdout


def test_the_watcher_sees_onnxruntime_talk(watcher: Path, tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(tiny.planner_onnx())
    code = (
        "import sys, time, onnxruntime\n"
        "onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        f"time.sleep({SECONDS})\n"
    )
    seen, _ = watch(watcher, tmp_path, sys.executable, "-c", code, str(tmp_path / "graph.onnx"))
    assert seen["write"] > 1
    assert seen["thread"] > 1


@pytest.mark.parametrize("before", ["", "0"])
def test_the_c_library_is_silent(watcher: Path, release: Path, tmp_path: Path, before: str) -> None:
    program = native_build.c_program("header_only", tmp_path, release)
    extra = {"LD_LIBRARY_PATH": str(release / "lib")}
    if before:
        extra["ORT_DISABLE_TELEMETRY"] = before
    command = [str(program), str(release), "open the tap", "10", SECONDS]
    seen, printed = watch(watcher, tmp_path, *command, **extra)
    assert f"ORT_DISABLE_TELEMETRY is {before or 'unset'}\n" in printed
    assert seen == {"thread": 2}  # the planner's and the refiner's


def test_python_is_silent(watcher: Path, release: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from libra_edge.binding.policy import Policy\n"
        "from libra_edge.engines import engine\n"
        "release = Path(sys.argv[1])\n"
        "graph = (release / 'engines/planner.onnx').read_bytes()\n"
        "session = engine('onnxruntime').load(graph, 'CPUExecutionProvider', {})\n"
        "policy = Policy(release)\n"
        f"time.sleep({SECONDS})\n"
    )
    seen, _ = watch(watcher, tmp_path, sys.executable, "-c", code, str(release))
    assert not seen.keys() & {"look-up", "connect", "socket", "write"}, seen
