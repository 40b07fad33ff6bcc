"""`libra-agent provision`: a slot is made ready by showing that it is, on this robot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime import tiny_release
from tests.runtime.agents import UNSIGNED, Robot, cached_agent


@pytest.fixture
def robot(tmp_path: Path, release: Path) -> Robot:
    made = Robot(cached_agent(), tmp_path / "robot")
    made.ask("install", str(release), UNSIGNED)
    return made


def test_what_is_shown_is_ready(robot: Robot) -> None:
    for _ in range(2):
        said = robot.ask("provision")
        assert (said["slot"], said["provider"], said["built"]) == ("a", "CPUExecutionProvider", 0)
        assert said["self_test"]["golden"] == tiny_release.GOLDEN
        assert robot.ask("status")["slots"]["a"]["state"] == "verified"
    robot.ask("activate")


def test_what_is_not_shown_is_bad(robot: Robot) -> None:
    tiny_release.replace(robot.root / "slots/a/engines/refiner.onnx", b"decayed")
    assert robot.refused("provision") == (3, "member-changed")
    assert robot.ask("status")["slots"]["a"]["state"] == "bad"
    assert robot.refused("activate") == (3, "slot-bad")


def test_an_empty_slot(robot: Robot) -> None:
    assert robot.refused("provision", "--slot", "b") == (3, "slot-empty")
