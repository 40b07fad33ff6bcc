"""What went wrong with others' installers, and disks and lines that do half of what they are told.

The first four are RAUC's issues 1676, 1452, 1585 and 459/1758.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime import tiny_release
from tests.runtime.agents import UNSIGNED, Robot, cached_agent, light, note, started, stream
from tests.runtime.native_build import C_SOURCES, STRICT, TARGET, zig

CUTS = 20


@pytest.fixture
def robot(tmp_path: Path, release: Path) -> Robot:
    """It runs `one`."""
    made = Robot(cached_agent(), tmp_path / "robot")
    started(made, light(release, "one", tmp_path / "one"))
    return made


@pytest.fixture
def two(release: Path, tmp_path: Path) -> Path:
    return light(release, "two", tmp_path / "two")


@pytest.fixture(scope="module")
def odd_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("odd") / "odd_calls.so"
    source = str(C_SOURCES / "odd_calls.c")
    zig("cc", *TARGET, "-std=c11", *STRICT, "-fPIC", "-shared", source, "-o", str(out))
    return out


def still_runs_one(robot: Robot) -> None:
    assert robot.current == "a"
    robot.ask("verify")


def hangs(release: Path, out: Path) -> Path:
    """A release whose library never comes back."""
    source = out.parent / "hang.c"
    source.write_text(
        "#include <unistd.h>\n"
        "__attribute__((constructor)) static void hang(void) { for (;;) pause(); }\n"
    )
    zig("cc", *TARGET, "-shared", str(source), "-o", str(out.parent / "hang.so"))
    path = tiny_release.link_release(release, out)
    content = (out.parent / "hang.so").read_bytes()
    tiny_release.replace(path / "lib/liblibra_edge.so", content)
    tiny_release.seal(path, {**tiny_release.manifest(), "name": "hangs"})
    return path


def test_a_killed_command_blocks_no_other(robot: Robot, release: Path, tmp_path: Path) -> None:
    """Nor does what it started: a self-test that hangs ends with it and keeps no lock."""
    robot.ask("install", str(hangs(release, tmp_path / "hangs")), UNSIGNED)
    words = [str(robot.agent), "activate", "--slot", "b", "--root", str(robot.root), "--json"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as agent:
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
        until = time.monotonic() + 30
        while not (started_by := children.read_text().split()) and time.monotonic() < until:
            time.sleep(0.01)
        assert started_by, "no self-test began"
        time.sleep(0.2)
        agent.send_signal(signal.SIGKILL)
    robot.ask("verify", "--slot", "a")
    still_runs_one(robot)
    until = time.monotonic() + 10
    while _runs(int(started_by[0])) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _runs(int(started_by[0]))


def _runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_installation_blocks_no_other(robot: Robot, two: Path) -> None:
    for call in ("write:signal=SIGKILL:when=4", "renameat:signal=SIGKILL:when=2"):
        killed = robot.run("install", str(two), UNSIGNED, inject=call)
        assert killed.returncode < 0 or not killed.stdout
    robot.ask("install", str(two), UNSIGNED)
    robot.ask("verify", "--slot", "b")
    still_runs_one(robot)


def test_a_source_that_vanishes_is_told(robot: Robot, two: Path) -> None:
    """At each member: there is one result, no slot is filled, and it goes on where it stopped."""
    members = sorted(json.loads((two / "manifest.json").read_bytes())["members"])
    for name in members:
        path = two / name
        path.rename(two.parent / "away")
        assert robot.refused("install", str(two), UNSIGNED) == (3, "member-missing")
        (two.parent / "away").rename(path)
        status = robot.ask("status")
        assert status["slots"]["b"] is None
        still_runs_one(robot)
    packed = stream(two)
    for cut in range(CUTS):
        end = len(packed) * cut // CUTS
        code = robot.refused("install", "-", UNSIGNED, feed=packed[:end])
        assert code[1] in ("stream-ended", "stream-invalid")
        assert robot.ask("status")["slots"]["b"] is None
    robot.ask("install", str(two), UNSIGNED)
    robot.ask("verify", "--slot", "b")
    print(f"sources: {len(members)} vanished and {CUTS} cut, {len(members) + CUTS} survived")


@pytest.mark.parametrize("how", ["self-test", "decay", "mark-bad"])
def test_a_failed_slot_counts_for_nothing(robot: Robot, two: Path, how: str) -> None:
    """The same release is written anew, and is not taken for installed because it once was."""
    robot.ask("install", str(two), UNSIGNED)
    if how == "mark-bad":
        (robot.root / "current").unlink()
        (robot.root / "current").symlink_to("slots/b")
        note(robot, previous="a", pending="b", deadline=2**31, pending_since_unix_s=2**30)
        robot.ask("mark-bad")
    else:
        if how == "decay":
            tiny_release.replace(robot.root / "slots/b/engines/refiner.onnx", b"decayed")
        assert robot.refused("activate", "--slot", "b")[0] == 3
    assert robot.refused("activate", "--slot", "b") == (3, "slot-bad")
    before = (robot.root / "slots/b").stat().st_ino
    said = robot.ask("install", str(two), UNSIGNED)
    assert "already" not in said
    assert (robot.root / "slots/b").stat().st_ino != before
    robot.ask("verify", "--slot", "b")
    still_runs_one(robot)


def with_odd_calls(
    robot: Robot, odd_calls: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    def run(*words: str) -> subprocess.CompletedProcess[bytes]:
        with monkeypatch.context() as patch:
            patch.setenv("LD_PRELOAD", str(odd_calls))
            patch.setenv(name, value)
            return robot.run(*words)

    return run


def test_every_byte_is_read_back(
    robot: Robot, two: Path, odd_calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that turns one bit, of any write: what is said to be installed verifies."""
    tried = refused = 0
    while True:
        tried += 1
        trial = robot.copy(tmp_path / f"trial-{tried}")
        flip = with_odd_calls(trial, odd_calls, monkeypatch, "ODD_FLIP", str(tried))
        done = flip("install", str(two), UNSIGNED)
        still_runs_one(trial)
        if done.returncode != 0:
            said = json.loads(done.stdout)
            assert said["code"] in ("disk-wrong", "member-changed", "member-missing"), said
            assert trial.ask("status")["slots"]["b"] is None
            refused += 1
            continue
        # Of its own note alone: what the slots hold says the rest.
        trial.ask("install", str(two), UNSIGNED)
        trial.ask("verify", "--slot", "b")
        break
    members = len(json.loads((two / "manifest.json").read_bytes())["members"])
    assert refused >= members
    print(f"turned bits: {tried} writes tried, {refused} seen, the last one in its own note")


@pytest.mark.parametrize("command", ["install", "rollback", "mark-bad"])
def test_short_reads_and_writes(
    robot: Robot,
    two: Path,
    release: Path,
    odd_calls: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    started(robot, two)
    note(robot, previous="a")
    three = light(release, "three", tmp_path / "three")
    words = (command, str(three), UNSIGNED) if command == "install" else (command,)
    done = with_odd_calls(robot, odd_calls, monkeypatch, "ODD_SHORT", "1")(*words)
    assert done.returncode == 0, done.stdout
    assert robot.current == ("b" if command == "install" else "a")
    robot.ask("verify", "--slot", "a")
    assert {path.name for path in (robot.root / "slots").iterdir()} == {"a", "b"}
