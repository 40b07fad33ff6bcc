"""Agents that do not run, and answers that are none."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from libra_edge.bundle.members import AGENT
from libra_edge.deploy.agent import NoAgent
from libra_edge.deploy.flash import Flashed, FlashRequest, flash
from libra_edge.deploy.robot import Robot
from libra_edge.deploy.state import (
    require_agent,
)
from libra_edge.deploy.transport import Line
from libra_edge.errors import (
    IncompatibleError,
    LibraError,
)
from tests.deploy.robots import write


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(Robot("robot", None, PurePosixPath(tmp_path / "robot")))


def root(line: Line) -> Path:
    return Path(line.robot.root)


def put(line: Line, release: Path, **words: Any) -> Flashed:
    return flash(line, FlashRequest(release, allow_unsigned=True, **words))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "hello",
        "[]",
        "{",
        '{"ok": 1}',
        '{"ok": NaN}',
        "[" * 100_000,
        '{"ok": true',
    ],
)
def test_what_is_no_answer(tmp_path: Path, line: Line, answer: str) -> None:
    say(line, answer)
    with pytest.raises(NoAgent):
        require_agent(line)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"slots": None, "active": None},
        {"slots": {"a": {"state": "good"}}, "active": "a"},
        {"slots": {}, "active": "c"},
        {"slots": {}, "active": None, "health_deadline_unix_s": "soon"},
        {"slots": {}, "active": None, "health_deadline_unix_s": 10**30},
        {"slots": {"a": {"state": "good", "manifest_sha256": "", "security_epoch": 1e999}}},
    ],
)
def test_answers_that_say_too_little(line: Line, said: dict[str, Any]) -> None:
    # Python would write the number that no JSON has.
    say(line, json.dumps({"ok": True, **said}).replace("Infinity", "1e999"))
    with pytest.raises(LibraError) as raised:
        require_agent(line)
    assert raised.value.code == "agent-answer"


def test_an_answer_between_other_words(line: Line) -> None:
    good = {"ok": True, "slots": {}, "active": None}
    say(line, "Welcome!\n{not json}\n" + json.dumps(good, indent=1) + "\nbye")
    assert require_agent(line)[1].active is None


def say(line: Line, answer: str) -> None:
    """An agent that says one thing, whatever it is asked."""
    agent = root(line) / "current" / "lib" / "libra-agent"
    agent.parent.mkdir(parents=True, exist_ok=True)
    (agent.parent / "said").write_text(answer)
    agent.write_text(f"#!/bin/sh\ncat '{agent.parent}/said'\n")
    agent.chmod(0o755)


def test_an_agent_that_does_not_run_there(tmp_path: Path, line: Line) -> None:
    release = write(tmp_path, members={AGENT: b"\x7fELF for another machine"})
    with pytest.raises(IncompatibleError) as raised:
        put(line, release)
    assert raised.value.code == "agent-does-not-run"
    assert not (root(line) / "current").exists()


def test_an_agent_that_wants_what_the_release_does_not_have(tmp_path: Path, line: Line) -> None:
    release = write(tmp_path)
    for wanted in (
        [{"name": "../../etc/passwd", "sha256": "0" * 64, "have_bytes": 0}],
        [{"name": "lib/libra-agent", "sha256": "0" * 64, "have_bytes": 0}],
        "everything",
        [{"name": "lib/libra-agent"}],
    ):
        state = {"slots": {}, "active": None, "needs_bytes": 1, "free_bytes": 10**12}
        say(line, json.dumps({"ok": True, **state, "members": wanted}))
        with pytest.raises(LibraError) as raised:
            put(line, release, dry_run=True)
        assert raised.value.code == "agent-answer"
