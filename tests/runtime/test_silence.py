"""Nothing of ours looks up a name, opens a connection, or writes a file that nobody asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import watching
from tests.runtime import native_build
from tests.runtime import tiny_release as tiny
from tests.watching import watch

# Long enough for ONNX Runtime's telemetry, where it is on, to look up its host.
SECONDS = "8"


@pytest.fixture(scope="module")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return watching.build_watcher(tmp_path_factory.mktemp("watcher"))


def test_the_watcher_sees_onnxruntime_talk(watcher: Path, tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(tiny.planner_onnx())
    code = (
        "import sys, time, onnxruntime\n"
        "onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        f"time.sleep({SECONDS})\n"
    )
    seen = watch(watcher, tmp_path, sys.executable, "-c", code, str(tmp_path / "graph.onnx"))
    assert len(seen.written) > 1
    assert any("onnxruntime" in libraries for libraries in seen.threads)
    home, tmp = tmp_path / "home", tmp_path / "tmp"
    assert seen.outside() >= seen.outside(tmp) >= seen.outside(home, tmp)
    assert any(path.is_relative_to(home) for path in seen.outside(tmp))


@pytest.mark.parametrize("before", ["", "0"])
def test_the_c_library_is_silent(watcher: Path, release: Path, tmp_path: Path, before: str) -> None:
    program = native_build.c_program("header_only", tmp_path, release)
    extra = {"LD_LIBRARY_PATH": str(release / "lib")}
    if before:
        extra["ORT_DISABLE_TELEMETRY"] = before
    command = [str(program), str(release), "open the tap", "10", SECONDS]
    seen = watch(watcher, tmp_path, *command, **extra)
    assert f"ORT_DISABLE_TELEMETRY is {before or 'unset'}\n" in seen.printed
    assert (seen.look_ups, seen.connections, seen.outside()) == ([], [], set())
    # The planner's and the refiner's.
    assert len(seen.threads) == 2
    assert all("liblibra_edge.so" in libraries for libraries in seen.threads), seen.threads


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
    seen = watch(watcher, tmp_path, sys.executable, "-c", code, str(release))
    assert (seen.look_ups, seen.connections, seen.outside()) == ([], [], set())
    assert not [libraries for libraries in seen.threads if "onnxruntime" in libraries]
