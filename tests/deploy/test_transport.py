"""Programs on a robot and what becomes of them, without a line between."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from libra_edge.deploy.robot import Robot
from libra_edge.deploy.transport import Line


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(Robot("robot", None, PurePosixPath(tmp_path / "robot")))


def test_an_agent_that_takes_nothing_is_given_up(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libra_edge.deploy.transport.STALL_S", 0.2)
    started = time.monotonic()
    answer = line.run(["sleep", "60"], [bytes(1 << 20)])
    assert answer.lost
    assert line.run(["sleep", "60"], timeout_s=0.2).lost
    assert time.monotonic() - started < 20


def test_a_program_that_stops_reading_is_heard(line: Line) -> None:
    answer = line.run(["sh", "-c", "echo no; exit 3"], [bytes(1 << 22)])
    assert (answer.status, answer.stdout, answer.lost) == (3, b"no\n", False)
    assert line.run(["sh", "-c", "kill -9 $$"]).lost
    assert line.run([str(line.robot.root / "nothing")]).status == 127


def test_no_child_outlives_a_feed_that_fails(tmp_path: Path, line: Line) -> None:
    def feed() -> Iterator[bytes]:
        yield b"x"
        raise ValueError("gone")

    mark = tmp_path / "pid"
    with pytest.raises(ValueError, match="gone"):
        line.run(["sh", "-c", f"echo $$ > {mark}; cat; sleep 60"], feed())
    if mark.exists() and mark.read_text().strip():
        with pytest.raises(ProcessLookupError):
            os.kill(int(mark.read_text()), 0)
