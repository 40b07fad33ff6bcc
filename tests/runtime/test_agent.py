"""`libra-agent` on a robot's folder: what it installs, runs on trial, rolls back and refuses."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from libra_edge.bundle.pack import pack_release
from tests.runtime import tiny_release
from tests.runtime.agents import Robot, cached_agent, stream

UNSIGNED = "--allow-unsigned"
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def agent() -> Path:
    return cached_agent()


@pytest.fixture
def robot(agent: Path, tmp_path: Path) -> Robot:
    return Robot(agent, tmp_path / "robot")


@pytest.fixture(scope="module")
def other(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another release than `release`, of another name."""
    path = tiny_release.make_release(tmp_path_factory.mktemp("other") / "release", library)
    tiny_release.seal(path, {**tiny_release.manifest(), "name": "other"})
    return path


def test_nothing_is_there_at_first(robot: Robot) -> None:
    said = robot.ask("status")
    assert (said["active"], said["slots"]) == (None, {"a": None, "b": None})
    assert said["health_deadline_unix_s"] is None
    assert robot.refused("activate") == (3, "slot-empty")
    assert robot.refused("mark-good") == (3, "nothing-active")
    assert robot.refused("rollback") == (3, "no-previous")


def test_two_releases_take_turns(robot: Robot, release: Path, other: Path) -> None:
    assert robot.ask("install", str(release), UNSIGNED)["slot"] == "a"
    assert robot.current is None
    tested = robot.ask("self-test", "--slot", "a")["self_test"]
    assert tested["golden"] > 0
    assert tested["chunk_median_ms"] < tested["chunk_limit_ms"]
    said = robot.ask("activate", "--health-timeout-s", "600")
    assert said["health_deadline_unix_s"] > time.time() + 500
    assert robot.current == "a"
    robot.ask("mark-good")
    assert robot.ask("install", str(other), UNSIGNED)["slot"] == "b"
    robot.ask("activate")
    status = robot.ask("status")
    assert (status["active"], status["previous"]) == ("b", "a")
    assert [status["slots"][s]["state"] for s in "ab"] == ["good", "active"]
    assert [status["slots"][s]["release"] for s in "ab"] == ["tiny", "other"]
    robot.ask("rollback")
    assert robot.current == "a"
    robot.ask("rollback")
    assert robot.current == "b"
    robot.ask("mark-bad")
    assert robot.current == "a"
    assert robot.refused("rollback") == (3, "no-previous")
    assert robot.refused("mark-bad") == (3, "no-previous"), "said twice it takes nothing away"
    assert robot.current == "a"
    assert robot.refused("activate", "--slot", "b") == (3, "slot-bad")


def test_a_trial_that_nobody_marks_good_ends_by_itself(
    robot: Robot, release: Path, other: Path
) -> None:
    for path, wait in ((release, "600"), (other, "0")):
        robot.ask("install", str(path), UNSIGNED)
        robot.ask("activate", "--health-timeout-s", wait)
        if path == release:
            robot.ask("mark-good")
    status = robot.ask("status")
    assert status["active"] == "a"
    assert status["slots"]["b"]["state"] == "bad"
    assert status["health_deadline_unix_s"] is None


def test_slots_share_no_bytes(robot: Robot, release: Path, other: Path) -> None:
    for path in (release, other):
        robot.ask("install", str(path), UNSIGNED)
        robot.ask("activate")
        robot.ask("mark-good")
    files = [robot.root / "slots" / slot / "lib/libonnxruntime.so" for slot in "ab"]
    assert len({file.stat().st_ino for file in files}) == 2
    assert all(file.stat().st_nlink == 1 for file in files)


def test_a_packed_release_and_a_stream_are_the_same(
    robot: Robot, release: Path, agent: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "one.libra"
    pack_release(release, packed)
    robot.ask("install", str(packed), UNSIGNED)
    streamed = Robot(agent, tmp_path / "streamed")
    streamed.ask("install", "-", UNSIGNED, feed=stream(release))
    for each in (robot, streamed):
        each.ask("verify", "--slot", "a")
        assert each.ask("status")["slots"]["a"]["state"] == "verified"
        assert each.ask("install", str(release), UNSIGNED)["already"] == "installed"
    assert robot.refused("install", str(tmp_path / "none"), UNSIGNED)[0] == 2


def test_a_broken_line_is_taken_up_again(robot: Robot, release: Path) -> None:
    whole = stream(release)
    for end in (0, 3, 15, 16, 40, len(whole) // 3, len(whole) - 1):
        status, _ = robot.refused("install", "-", UNSIGNED, feed=whole[:end])
        assert status in (1, 2)
        assert robot.ask("status")["slots"] == {"a": None, "b": None}
    manifest = (release / "manifest.json").read_bytes()
    members = robot.ask("missing", feed=manifest)["members"]
    assert len(members) == 1, "all but the last arrived"
    offsets = {row["name"]: row["have_bytes"] for row in members}
    assert list(offsets.values()) == [members[0]["size_bytes"] - 1]
    robot.ask("install", "-", UNSIGNED, feed=stream(release, offsets))
    robot.ask("verify", "--slot", "a")
    assert robot.ask("missing", feed=manifest)["members"] == []


def truncated(release: Path) -> None:
    tiny_release.replace(release / "engines/refiner.onnx", b"short")


def changed(release: Path) -> None:
    file = release / "engines/refiner.onnx"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    tiny_release.replace(file, bytes(data))


def gone(release: Path) -> None:
    (release / "engines/refiner.onnx").unlink()


def linked(release: Path) -> None:
    file = release / "engines/refiner.onnx"
    file.rename(release.parent / "away")
    file.symlink_to(release.parent / "away")


def piped(release: Path) -> None:
    file = release / "engines/refiner.onnx"
    file.unlink()
    os.mkfifo(file)


def untrained(release: Path) -> None:
    tiny_release.seal(release, {**tiny_release.manifest(), "random_weights": True})


def of_another_machine(release: Path) -> None:
    manifest = tiny_release.manifest()
    manifest["runtime"] = {**manifest["runtime"], "arch": "aarch64-linux-gnu"}
    tiny_release.seal(release, manifest)


def no_manifest(release: Path) -> None:
    tiny_release.replace(release / "manifest.json", b"{}")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (truncated, 3),
        (changed, 3),
        (gone, 3),
        (linked, 1),
        (piped, 3),
        (untrained, 3),
        (of_another_machine, 4),
        (no_manifest, 3),
    ],
)
def test_what_is_wrong_is_refused_and_leaves_nothing(
    robot: Robot, copy: Callable[[], Path], change: Change, status: int
) -> None:
    release = copy()
    change(release)
    assert robot.refused("install", str(release), UNSIGNED)[0] == status
    assert robot.ask("status")["slots"] == {"a": None, "b": None}
    assert list((robot.root / "slots").iterdir()) == []


def test_a_signature_is_asked_for(robot: Robot, release: Path) -> None:
    assert robot.refused("install", str(release)) == (3, "unsigned")
    (robot.root / "trust.json").write_text('{"schema": 1, "allow_unsigned": false, "keys": []}')
    assert robot.refused("install", str(release), UNSIGNED) == (3, "unsigned")


def test_bytes_that_decay_are_seen_before_they_run(robot: Robot, release: Path) -> None:
    robot.ask("install", str(release), UNSIGNED)
    changed(robot.root / "slots/a")
    assert robot.refused("activate") == (3, "member-changed")
    assert robot.ask("status")["slots"]["a"]["state"] == "bad"
    assert robot.ask("install", str(release), UNSIGNED) == {
        "ok": True,
        "command": "install",
        "slot": "a",
    }


def test_another_policy_than_its_golden_vectors_is_not_run(
    robot: Robot, copy: Callable[[], Path], release: Path
) -> None:
    robot.ask("install", str(release), UNSIGNED)
    robot.ask("activate")
    robot.ask("mark-good")
    wrong = copy()
    tiny_release.replace(
        wrong / "golden/actions.npy", _moved((wrong / "golden/actions.npy").read_bytes())
    )
    tiny_release.seal(wrong, tiny_release.manifest())
    robot.ask("install", str(wrong), UNSIGNED)
    assert robot.refused("activate") == (3, "self-test-failed")
    assert robot.current == "a"
    assert robot.ask("status")["slots"]["b"]["state"] == "bad"


def _moved(content: bytes) -> bytes:
    import io

    import numpy as np

    actions = np.load(io.BytesIO(content))
    stream = io.BytesIO()
    np.save(stream, (actions + 0.3).astype(actions.dtype))
    return stream.getvalue()


def test_a_release_that_crashes_takes_nothing_down(
    robot: Robot, copy: Callable[[], Path], tmp_path: Path
) -> None:
    from tests.runtime.native_build import TARGET, zig

    source = tmp_path / "crash.c"
    source.write_text(
        "__attribute__((constructor)) static void crash(void) { __builtin_trap(); }\n"
    )
    zig("cc", *TARGET, "-shared", str(source), "-o", str(tmp_path / "crash.so"))
    wrong = copy()
    tiny_release.replace(wrong / "lib/liblibra_edge.so", (tmp_path / "crash.so").read_bytes())
    tiny_release.seal(wrong, tiny_release.manifest())
    robot.ask("install", str(wrong), UNSIGNED)
    assert robot.refused("activate") == (3, "self-test-failed")
    assert robot.current is None


@pytest.mark.parametrize("name", ["pre-activate", "post-activate"])
def test_hooks_may_say_no(robot: Robot, release: Path, other: Path, name: str) -> None:
    robot.ask("install", str(release), UNSIGNED)
    robot.ask("activate")
    robot.ask("mark-good")
    robot.ask("install", str(other), UNSIGNED)
    hook = robot.root / "hooks" / name
    hook.parent.mkdir()
    hook.write_text('#!/bin/sh\necho "$LIBRA_SLOT $1" >> "$LIBRA_ROOT/seen"\nexit 1\n')
    hook.chmod(0o755)
    assert robot.refused("activate") == (3, "hook-refused")
    assert robot.current == "a"
    assert (robot.root / "seen").read_text().splitlines()[0] == "b b"
    hook.unlink()
    if name == "pre-activate":
        robot.ask("activate")
        assert robot.current == "b"


def test_one_at_a_time(robot: Robot, release: Path) -> None:
    robot.ask("status")
    with (robot.root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert robot.refused("install", str(release), UNSIGNED) == (5, "busy")
        robot.ask("status")


@pytest.mark.parametrize(
    "words",
    [
        ("install",),
        ("launch",),
        ("status", "more"),
        ("activate", "--slot", "c"),
        ("activate", "--health-timeout-s", "-1"),
        ("activate", "--health-timeout-s", "99999999"),
        ("status", "--what"),
        ("activate", "--slot"),
    ],
)
def test_wrong_words_are_refused(robot: Robot, words: tuple[str, ...]) -> None:
    done = robot.run(*words)
    assert done.returncode == 2
    assert json.loads(done.stdout)["code"] == "usage"


def test_a_lost_note_is_written_again_from_the_slots(robot: Robot, release: Path) -> None:
    robot.ask("install", str(release), UNSIGNED)
    robot.ask("activate")
    for damage in (b"", b"{", b"[]", b'{"slots": 3}'):
        (robot.root / "state.json").write_bytes(damage)
        status = robot.ask("status")
        assert status["active"] == "a"
        assert status["slots"]["a"]["state"] == "good"


def test_nothing_is_written_through_links(robot: Robot, release: Path, tmp_path: Path) -> None:
    robot.ask("status")
    away = tmp_path / "away"
    away.mkdir()
    (robot.root / "slots/a.new").symlink_to(away)
    (robot.root / "incoming").symlink_to(away)
    status, _ = robot.refused("install", str(release), UNSIGNED)
    assert status == 1
    assert list(away.iterdir()) == []
    (robot.root / "incoming").unlink()
    shutil.rmtree(robot.root / "slots")
    (robot.root / "slots").symlink_to(away)
    assert robot.refused("install", str(release), UNSIGNED)[0] == 1
    assert list(away.iterdir()) == []
