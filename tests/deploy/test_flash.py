"""Flashing a robot that is a folder of this machine: the same code as over ssh, without a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from libra_edge.bundle.pack import pack_release
from libra_edge.bundle.signature import sign_release
from libra_edge.bundle.verify import read_signature
from libra_edge.deploy import flash as module
from libra_edge.deploy.agent import Agent, NoAgent
from libra_edge.deploy.flash import Flashed, FlashRequest, flash
from libra_edge.deploy.robot import Robot
from libra_edge.deploy.state import (
    find_agent,
    read_state,
    require_agent,
    roll_back,
    wait_until_good,
)
from libra_edge.deploy.transport import Line
from libra_edge.errors import (
    IntegrityError,
    LibraError,
    ParityError,
    StoppedError,
)
from tests.bundle.signed import new_key
from tests.deploy.robots import GOLDEN, current, write

BIG = {"engines/planner.onnx": bytes(range(256)) * 8192}  # 2 MiB


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(Robot("robot", None, PurePosixPath(tmp_path / "robot")))


def root(line: Line) -> Path:
    return Path(line.robot.root)


def put(line: Line, release: Path, **words: Any) -> Flashed:
    return flash(line, FlashRequest(release, allow_unsigned=True, **words))


def test_a_first_release_brings_its_agent(tmp_path: Path, line: Line) -> None:
    assert find_agent(line) is None
    done = put(line, write(tmp_path))
    assert (done.condition, done.slot, done.before) == ("active", "a", None)
    assert current(root(line)) == "example"
    assert not list((root(line)).glob("incoming/*"))
    assert json.dumps(done.to_json())


def test_only_what_is_missing_crosses(tmp_path: Path, line: Line) -> None:
    put(line, write(tmp_path))
    done = put(line, write(tmp_path, "second", members=BIG))
    assert [part.name for part in done.plan.parts] == ["engines/planner.onnx"]
    assert done.sent_bytes == done.plan.send_bytes == 2 * 1024 * 1024
    assert (done.slot, current(root(line))) == ("b", "second")


def test_what_is_active_is_not_sent_again(tmp_path: Path, line: Line) -> None:
    release = write(tmp_path)
    put(line, release)
    before = sorted((p, p.lstat().st_mtime_ns) for p in root(line).rglob("slots/**/*"))
    done = put(line, release)
    assert (done.condition, done.sent_bytes) == ("already active", 0)
    assert before == sorted((p, p.lstat().st_mtime_ns) for p in root(line).rglob("slots/**/*"))


def test_a_packed_release(tmp_path: Path, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pack_release(write(tmp_path), tmp_path / "example.libra")
    assert put(line, tmp_path / "example.libra").condition == "active"


@pytest.mark.parametrize("seeded", [False, True])
def test_a_dry_run_changes_nothing(tmp_path: Path, line: Line, seeded: bool) -> None:
    if seeded:
        put(line, write(tmp_path))
    before = sorted(tmp_path.rglob("robot/**/*"))
    done = put(line, write(tmp_path, "second", members=BIG), dry_run=True)
    assert (done.condition, done.slot) == ("planned", "b" if seeded else "a")
    assert len(done.plan.parts) == (1 if seeded else 14)
    assert sorted(tmp_path.rglob("robot/**/*")) == before
    real = put(line, tmp_path / "second")
    assert real.plan.parts == done.plan.parts


def test_install_now_switch_later(tmp_path: Path, line: Line) -> None:
    put(line, write(tmp_path))
    done = put(line, write(tmp_path, "second"), activate=False)
    assert (done.condition, current(root(line))) == ("installed", "example")
    again = put(line, tmp_path / "second")
    assert (again.condition, again.sent_bytes, current(root(line))) == ("active", 0, "second")


def test_a_failed_self_test_leaves_the_old_release(tmp_path: Path, line: Line) -> None:
    put(line, write(tmp_path))
    with pytest.raises(LibraError) as raised:
        put(line, write(tmp_path, "broken", members={GOLDEN: b"BAD"}))
    assert raised.value.code == "self-test-failed"
    assert raised.value.exit_code == 3
    assert "still runs example" in raised.value.remedy
    assert current(root(line)) == "example"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        (
            {
                "parity": {
                    "verdict": "fail",
                    "samples": 1,
                    "checks": [{"stage": "s", "metric": "m", "threshold": 1, "verdict": "fail"}],
                }
            },
            ParityError,
        ),
        ({"random_weights": True}, LibraError),
    ],
)
def test_a_release_that_must_not_run_is_refused_before_the_robot_is_asked(
    tmp_path: Path, line: Line, changes: dict[str, Any], kind: type[LibraError]
) -> None:
    with pytest.raises(kind):
        put(line, write(tmp_path, **changes))
    assert not root(line).exists()


def test_unsigned_is_said_by_name(tmp_path: Path, line: Line) -> None:
    with pytest.raises(IntegrityError) as raised:
        flash(line, FlashRequest(write(tmp_path)))
    assert raised.value.code == "release-unsigned"


def test_a_changed_release_never_leaves(tmp_path: Path, line: Line) -> None:
    release = write(tmp_path)
    (release / "engines/refiner.onnx").write_bytes(b"other")
    with pytest.raises(IntegrityError):
        put(line, release)
    assert not root(line).exists()


def sending(act: Callable[[int], None]) -> Any:
    """A progress display that does something as bytes cross."""

    @contextmanager
    def context(total_bytes: int) -> Iterator[Callable[[int], None]]:
        yield act

    return context


def test_the_source_goes_away_half_way(tmp_path: Path, line: Line) -> None:
    put(line, write(tmp_path))
    tail = {"golden/state.npy": b"s" * 700_000}
    release = write(tmp_path, "second", members={**BIG, **tail})
    moved = tmp_path / "moved"

    def remove(_: int) -> None:
        if release.exists():
            release.rename(moved)

    request = FlashRequest(release, allow_unsigned=True)
    with pytest.raises(LibraError) as raised:
        flash(line, request, sending=sending(remove))
    assert raised.value.code == "source-lost"
    assert "still runs example" in raised.value.remedy
    assert current(root(line)) == "example"
    moved.rename(release)
    done = put(line, release)
    assert done.condition == "active"
    assert done.plan.send_bytes < 2 * 1024 * 1024 + 700_000  # what arrived was kept


def test_ctrl_c_says_what_the_robot_runs(tmp_path: Path, line: Line) -> None:
    put(line, write(tmp_path))
    release = write(tmp_path, "second", members=BIG)

    def press(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(StoppedError) as raised:
        flash(line, FlashRequest(release, allow_unsigned=True), sending=sending(press))
    assert "still runs example" in raised.value.remedy
    assert raised.value.exit_code == 130
    assert current(root(line)) == "example"
    done = put(line, release)
    assert (done.condition, current(root(line))) == ("active", "second")
    assert done.plan.send_bytes < 2 * 1024 * 1024


def test_ctrl_c_during_the_switch_says_either_or(
    tmp_path: Path, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(line, write(tmp_path))

    def press(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_settle_health", press)
    with pytest.raises(StoppedError) as raised:
        put(line, write(tmp_path, "second"))
    assert "second or still example" in raised.value.remedy


def test_a_robot_that_is_busy_is_waited_for(
    tmp_path: Path, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(module, "RECONNECT_S", (0.1, 0.1))
    put(line, write(tmp_path))
    with (root(line) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LibraError) as raised:
            put(line, write(tmp_path, "second"))
        assert raised.value.code == "busy"
    assert put(line, tmp_path / "second").condition == "active"


def test_what_runs_is_marked_good_by_us_or_waited_for(
    tmp_path: Path, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libra_edge.deploy.state.POLL_S", 0.05)
    done = put(line, write(tmp_path), mark_good=True)
    assert done.after is not None
    assert done.after.is_good
    assert done.after.deadline_unix_s is None
    with pytest.raises(LibraError) as raised:
        put(line, write(tmp_path, "second"), health_timeout_s=1, wait_s=5)
    assert raised.value.code == "rolled-back"
    assert current(root(line)) == "example"
    agent, _ = require_agent(line)
    with pytest.raises(LibraError) as raised:
        put(line, write(tmp_path, "third"), wait_s=0.1)
    assert raised.value.code == "not-marked-good"
    agent.ask("mark-good")
    slot = read_state(agent).slots[read_state(agent).active or ""]
    assert slot is not None
    assert wait_until_good(agent, slot.manifest_sha256, 1).is_good


def test_a_broken_agent_is_replaced_by_the_next_release(tmp_path: Path, line: Line) -> None:
    put(line, write(tmp_path))
    (root(line) / "slots/a/lib/libra-agent").write_bytes(b"\x7fELF broken")
    with pytest.raises(NoAgent):
        require_agent(line)
    assert put(line, write(tmp_path, "second")).condition == "active"
    assert current(root(line)) == "second"


def test_rollback_works_with_the_other_slots_agent(tmp_path: Path, line: Line) -> None:
    put(line, write(tmp_path))
    put(line, write(tmp_path, "second"))
    (root(line) / "slots/b/lib/libra-agent").write_bytes(b"")
    require_agent(line)[0].ask("rollback")
    assert current(root(line)) == "example"


def test_ctrl_c_during_a_rollback_says_either_or(
    tmp_path: Path, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(line, write(tmp_path))
    put(line, write(tmp_path, "second"))
    plain = Agent.ask

    def ask(agent: Agent, *words: str, **more: Any) -> Any:
        if words[0] == "rollback":
            raise KeyboardInterrupt
        return plain(agent, *words, **more)

    monkeypatch.setattr(Agent, "ask", ask)
    with pytest.raises(StoppedError) as raised:
        roll_back(line)
    assert "or still second" in raised.value.remedy


def test_a_signature_travels_with_its_release(
    tmp_path: Path, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    release = write(tmp_path)
    sign_release(release, new_key())
    pack_release(release, tmp_path / "signed.libra")
    signature = read_signature(release)
    assert signature
    assert flash(line, FlashRequest(tmp_path / "signed.libra")).condition == "active"
    assert (root(line) / "slots/a/model.sig").read_bytes() == signature
    assert flash(line, FlashRequest(release)).condition == "already active"
