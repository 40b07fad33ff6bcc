"""Robots behind a real sshd on loopback: lines that break, keys that are not known, jump hosts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libra_edge.deploy import flash as module
from libra_edge.deploy.agent import Agent, LineLost
from libra_edge.deploy.flash import Flashed, FlashRequest, flash
from libra_edge.deploy.robot import parse_robot
from libra_edge.deploy.state import require_agent, roll_back
from libra_edge.deploy.transport import connect
from libra_edge.errors import UnreachableError
from tests.deploy.robots import Cutter, Sshd, current, needs_sshd, sshd, write

pytestmark = needs_sshd
BIG = os.urandom(3_000_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECONNECT_S", (0.2, 0.2, 0.2))


def put(server: Sshd, root: Path, release: Path, config: Path | None = None) -> Flashed:
    robot = parse_robot("robot", str(root))
    with connect(robot, ssh_config=config or server.config, ask=False) as line:
        return flash(line, FlashRequest(release, allow_unsigned=True))


def test_flash_status_and_rollback(server: Sshd, tmp_path: Path) -> None:
    root = tmp_path / "robot's folder"
    assert put(server, root, write(tmp_path)).condition == "active"
    assert put(server, root, write(tmp_path, "second")).slot == "b"
    with connect(parse_robot("robot", str(root)), ssh_config=server.config, ask=False) as line:
        require_agent(line)[0].ask("rollback")
        assert require_agent(line)[1].active == "a"
    assert current(root) == "example"


def break_at(server: Sshd, folder: Path, *places: int) -> None:
    """Break the line after so many bytes to the robot; it runs the old release or the new one."""
    first = write(folder)
    second = write(folder, "second", members={"engines/planner.onnx": BIG})
    with connect(parse_robot(str(folder / "robot"))) as line:
        flash(line, FlashRequest(first, allow_unsigned=True))
    for index, place in enumerate(places):
        root = folder / f"robot-{index}"
        shutil.copytree(folder / "robot", root, symlinks=True)
        cutter = Cutter(server.port, place)
        config = server.write_config(f"cut-{index}", cutter.port)
        try:
            done = put(server, root, second, config)
        except UnreachableError:  # before anything was begun
            assert current(root) == "example"
            done = put(server, root, second)
        assert cutter.cut == 1
        assert (done.condition, current(root)) == ("active", "second")
        assert done.sent_bytes < len(BIG) + 5_000_000
        cutter.close()
    print(f"broken lines: tried {len(places)}, survived {len(places)}")


def test_a_line_that_breaks_is_taken_up_again(server: Sshd, tmp_path: Path) -> None:
    break_at(server, tmp_path, 5_000, 1_500_000)


@pytest.mark.long
def test_a_line_that_breaks_anywhere(server: Sshd, tmp_path: Path) -> None:
    before = range(1_500, 13_500, 1_500)  # login and questions
    break_at(server, tmp_path, *before, *range(100_000, len(BIG), len(BIG) // 12))


def test_a_line_that_breaks_as_the_robot_switches(server: Sshd, tmp_path: Path) -> None:
    root = tmp_path / "robot"
    with connect(parse_robot(str(root))) as line:
        flash(line, FlashRequest(write(tmp_path), allow_unsigned=True))
    cutter = Cutter(server.port)
    config = server.write_config("switch", cutter.port)
    second = FlashRequest(write(tmp_path, "second"), allow_unsigned=True)

    def cut(stage: str) -> None:
        if stage.startswith("self-test"):
            cutter.sever()

    with connect(parse_robot("robot", str(root)), ssh_config=config, ask=False) as line:
        try:
            assert flash(line, second, on_stage=cut).condition == "active"
        except UnreachableError as error:
            assert "second or still example" in error.remedy  # noqa: PT017
    assert cutter.cut == 1
    assert put(server, root, tmp_path / "second").condition in ("active", "already active")
    assert current(root) == "second"
    cutter.close()


def test_a_line_that_breaks_during_a_rollback(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "robot"
    with connect(parse_robot(str(root))) as line:
        for name in ("example", "second"):
            flash(line, FlashRequest(write(tmp_path, name), allow_unsigned=True))
    cutter = Cutter(server.port)
    config = server.write_config("rollback", cutter.port)
    plain = Agent.ask

    def ask(agent: Agent, *words: str, **more: Any) -> Any:
        said = plain(agent, *words, **more)
        if words[0] == "rollback":  # done there, and nobody hears of it
            cutter.sever()
            raise LineLost("line-lost", "gone", "")
        return said

    monkeypatch.setattr(Agent, "ask", ask)
    with connect(parse_robot("robot", str(root)), ssh_config=config, ask=False) as line:
        before, after = roll_back(line)
    assert (before.active, after.active, current(root)) == ("b", "a", "example")
    cutter.close()


def test_a_line_that_stays_broken_says_so_and_keeps_what_arrived(
    server: Sshd, tmp_path: Path
) -> None:
    root = tmp_path / "robot"
    put(server, root, write(tmp_path))
    release = write(tmp_path, "second", members={"engines/planner.onnx": BIG})
    # The master's connection and whatever comes after it end at once.
    cutter = Cutter(server.port, 1_500_000, *[100] * 50)
    config = server.write_config("broken", cutter.port)
    with pytest.raises(UnreachableError) as raised:
        put(server, root, release, config)
    assert raised.value.exit_code == 6
    assert "still runs example" in raised.value.remedy
    assert current(root) == "example"
    done = put(server, root, release)
    assert done.condition == "active"
    assert 0 < done.sent_bytes < len(BIG)
    cutter.close()
