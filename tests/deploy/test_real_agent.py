"""Flashing with the agent that releases ship, over a real sshd: what the stand-in only claims."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libra_edge.bundle.manifest import ReleaseFacts
from libra_edge.bundle.members import AGENT
from libra_edge.bundle.pack import write_release
from libra_edge.bundle.verify import open_release
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.deploy import flash as module
from libra_edge.deploy.flash import Flashed, FlashRequest, flash
from libra_edge.deploy.robot import parse_robot
from libra_edge.deploy.state import require_agent, roll_back
from libra_edge.deploy.transport import connect
from libra_edge.errors import LibraError, UnreachableError
from tests.deploy.robots import GOLDEN, Cutter, Sshd, current, needs_sshd, sshd
from tests.tiny import write_tiny_checkpoint

pytestmark = [needs_sshd, pytest.mark.long]
BREAKS = 5


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agent")
    checkpoint = write_tiny_checkpoint(folder / "checkpoint")
    compile_checkpoint(Request(checkpoint, out=folder / "tiny", cache=folder / "c", samples=8))
    if AGENT not in open_release(folder / "tiny").manifest.members:
        pytest.skip(f"releases do not hold {AGENT} yet")
    return folder / "tiny"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def variant(release: Path, out: Path, **members: bytes) -> Path:
    """The same policy under another name, with other golden vectors if need be."""
    opened = open_release(release)
    body = opened.manifest.model_dump(mode="json", exclude={"members"}) | {"name": out.name}
    files: dict[str, Path | bytes] = {n: opened.member(n) for n in opened.manifest.members}
    write_release(out, ReleaseFacts.model_validate(body), files | members)
    return out


def allow_unsigned(root: Path) -> Path:
    """A robot's folder whose operator lets unsigned releases pass."""
    root.mkdir()
    (root / "trust.json").write_text('{"schema":1,"allow_unsigned":true,"keys":[]}')
    return root


def put(
    server: Sshd, root: Path, release: Path, config: Path | None = None, *, good: bool = True
) -> Flashed:
    request = FlashRequest(release, allow_unsigned=True, mark_good=good)
    robot = parse_robot("robot", str(root))
    with connect(robot, ssh_config=config or server.config, ask=False) as line:
        return flash(line, request)


def test_a_robots_life(server: Sshd, release: Path, tmp_path: Path) -> None:
    root = allow_unsigned(tmp_path / "robot")
    first = put(server, root, release)
    assert (first.condition, first.slot) == ("active", "a")
    assert put(server, root, release).condition == "already active"
    second = put(server, root, variant(release, tmp_path / "second"))
    assert (second.sent_bytes, current(root)) == (0, "second")
    actions = (release / GOLDEN).read_bytes()[:-4] + struct.pack("<f", 1000)
    with pytest.raises(LibraError) as raised:
        put(server, root, variant(release, tmp_path / "broken", **{GOLDEN: actions}))
    assert raised.value.exit_code == 3
    assert "still runs second" in raised.value.remedy
    assert current(root) == "second"
    third = put(server, root, variant(release, tmp_path / "third"), good=False)
    assert third.after is not None
    assert not third.after.is_good
    assert third.after.deadline_unix_s is not None
    with connect(parse_robot("robot", str(root)), ssh_config=server.config, ask=False) as line:
        roll_back(line)
        _, state = require_agent(line)
    assert current(root) == "second"
    slot = state.slots[state.active or ""]
    assert slot is not None
    assert (slot.release, slot.recipe, slot.target) == ("second", "fp32", "cpu-x86_64")


def test_a_line_that_breaks(
    server: Sshd, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECONNECT_S", (0.3, 0.3, 0.3))
    root = allow_unsigned(tmp_path / "robot")
    put(server, root, release)
    size_bytes = 3_000_000
    big: dict[str, Any] = {"sbom.cdx.json": os.urandom(size_bytes)}
    other = variant(release, tmp_path / "other", **big)
    for index in range(BREAKS):
        robot = tmp_path / f"robot-{index}"
        shutil.copytree(root, robot, symlinks=True)
        cutter = Cutter(server.port, 2_000 + size_bytes * index // BREAKS)
        config = server.write_config(f"real-{index}", cutter.port)
        try:
            put(server, robot, other, config)
        except UnreachableError:
            put(server, robot, other)
        assert cutter.cut == 1
        assert current(robot) == "other"
        cutter.close()


@pytest.fixture
def own_user() -> Iterator[str]:
    """A user that is the robot's alone, with a home."""
    if os.geteuid() != 0 or shutil.which("useradd") is None:
        pytest.skip("only root can make users")
    name = f"libra-robot-{os.getpid()}"
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True)
    # Or sshd takes the account for a locked one.
    subprocess.run(["usermod", "--password", "*", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


def test_a_user_of_the_robots_own(own_user: str, release: Path, tmp_path: Path) -> None:
    """Everything is done by that user, who can write nowhere else."""
    home = Path(f"~{own_user}").expanduser()
    root = allow_unsigned(home / "robot")
    shutil.chown(root, own_user)
    shutil.chown(root / "trust.json", own_user)
    with sshd(tmp_path / "sshd", user=own_user) as server:
        assert put(server, root, release).condition == "active"
        second = put(server, root, variant(release, tmp_path / "second"))
        assert (second.sent_bytes, current(root)) == (0, "second")
        assert {path.lstat().st_uid for path in root.rglob("*")} == {home.stat().st_uid}
        closed = allow_unsigned(tmp_path / "closed")
        with pytest.raises(LibraError) as raised:
            put(server, closed, release)
        assert raised.value.remedy
        assert {path.name for path in closed.iterdir()} == {"trust.json"}
