"""Commands look up nothing, write into the folders that they were told, and start no telemetry."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests import watching
from tests.runtime import native_build
from tests.watching import ROOT, Seen

KEPT = ROOT / "tests/golden/0.1.0"
DEMO = ROOT / "examples/metaworld"
TICKS_S = "60"


def libra_edge(*words: object) -> list[str]:
    return [sys.executable, "-m", "libra_edge.cli", *map(str, words)]


def require_silence(seen: Seen, *folders: Path) -> None:
    assert (seen.look_ups, seen.connections) == ([], [])
    assert seen.outside(*folders) == set()
    assert not [libraries for libraries in seen.threads if "onnxruntime" in libraries]


def require_nothing_left(folder: Path) -> None:
    """Files may come and go in the folder for temporary ones; none may stay, there or at home."""
    assert list((folder / "tmp").iterdir()) == []
    assert list((folder / "home").iterdir()) == []


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_compile_verify_and_simulate(tmp_path: Path, recipe: str) -> None:
    watcher = watching.build_watcher(tmp_path)
    # Compiled beforehand by Zig, a static program, which loads no library that could watch it.
    native_build.cached_library()
    kept = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    checkpoint, data, release = KEPT / "checkpoint", KEPT / "calibration", tmp_path / "out/release"
    options = ["--calibrate" if recipe == "int8" else "--data", data, "--cache", tmp_path / "cache"]
    commands = [
        ["compile", checkpoint, "--recipe", recipe, "--out", release, *options]
        + ["--calibration-samples", 128] * (recipe == "int8"),
        ["verify", release, "--checkpoint", checkpoint, "--samples", 24, *options],
        ["simulate", release, "--replay", data],
    ]
    for words in commands:
        seen = watching.watch(watcher, tmp_path, *libra_edge(*words), XDG_CACHE_HOME=str(kept))
        folders = [kept, tmp_path / "tmp"]
        if words[0] != "simulate":
            folders.append(tmp_path / "cache")
        if words[0] == "compile":
            folders.append(release.parent)
        require_silence(seen, *folders)
        require_nothing_left(tmp_path)
    assert {path.name for path in release.parent.iterdir()} == {"release", "release.build.json"}


@pytest.mark.long
@pytest.mark.skipif(not watching.can_trace(), reason="needs strace, and leave to trace")
def test_the_demo_by_every_system_call_of_every_process(tmp_path: Path) -> None:
    checkpoint, heldout = DEMO / "checkpoint", DEMO / "heldout"
    release, cache = tmp_path / "out/demo", tmp_path / "home/.cache/libra-edge"
    everywhere = [tmp_path / "tmp", cache]

    compiled = watching.trace(
        tmp_path, *libra_edge("compile", checkpoint, "--data", heldout, "--out", release)
    )
    require_silence(compiled, release.parent, cache.parent, *everywhere, Path("/dev/shm"))

    program = native_build.c_program("header_only", tmp_path, release)
    command = [str(program), str(release), "open the faucet", "10", TICKS_S]
    ticked = watching.trace(tmp_path, *command, LD_LIBRARY_PATH=str(release / "lib"))
    require_silence(ticked)
    assert len(ticked.threads) == 2

    words = ["verify", release, "--checkpoint", checkpoint, "--data", heldout]
    verified = watching.trace(tmp_path, *libra_edge(*words))
    require_silence(verified, *everywhere)

    for mode in ("sync", "async"):
        words = ["simulate", release, "--mode", mode, "--episodes", 1, "--task", "faucet-open"]
        require_silence(watching.trace(tmp_path, *libra_edge(*words)))
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]
