"""Logins: host keys, jump hosts, terminals, and what the user's configuration says."""

from __future__ import annotations

import os
import pty
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from libra_edge.deploy.flash import Flashed, FlashRequest, flash
from libra_edge.deploy.probe import probe
from libra_edge.deploy.robot import parse_robot
from libra_edge.deploy.transport import connect, not_reached
from libra_edge.errors import InputError, LibraError, UnreachableError
from tests.deploy.robots import Sshd, current, free_port, needs_sshd, sshd, write

pytestmark = needs_sshd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def put(server: Sshd, root: Path, release: Path, config: Path | None = None) -> Flashed:
    robot = parse_robot("robot", str(root))
    with connect(robot, ssh_config=config or server.config, ask=False) as line:
        return flash(line, FlashRequest(release, allow_unsigned=True))


def test_one_login_serves_every_command_and_leaves_nothing(server: Sshd, tmp_path: Path) -> None:
    log = server.folder / "sshd.log"
    before = log.read_text().count("Accepted publickey")
    with connect(parse_robot("robot", str(tmp_path)), ssh_config=server.config, ask=False) as line:
        folder = Path(line.ssh[line.ssh.index("-F") + 1]).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_ISSOCK((folder / "m").stat().st_mode)
        for _ in range(3):
            probe(line)
    assert log.read_text().count("Accepted publickey") - before == 1
    assert not folder.exists()


def test_a_host_key_that_is_not_known_is_refused(server: Sshd, tmp_path: Path) -> None:
    for words in ((), ("StrictHostKeyChecking no",), ("StrictHostKeyChecking accept-new",)):
        config = server.write_config("unknown", server.port, *words, known="# nobody\n")
        with (
            pytest.raises(UnreachableError) as raised,
            connect(parse_robot("robot", str(tmp_path)), ssh_config=config, ask=False),
        ):
            pass
        assert raised.value.code == "host-key-unknown"
        assert (server.folder / "unknown.known").read_text() == "# nobody\n"


def other_key(folder: Path) -> str:
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "other")]
    subprocess.run(words, check=True)
    return " ".join((folder / "other.pub").read_text().split()[:2])


def test_another_host_key_is_refused(server: Sshd, tmp_path: Path) -> None:
    known = f"[127.0.0.1]:{server.port} {other_key(tmp_path)}\n"
    words = ("StrictHostKeyChecking no", "NoHostAuthenticationForLocalhost yes")
    config = server.write_config("changed", server.port, *words, known=known)
    with (
        pytest.raises(UnreachableError) as raised,
        connect(parse_robot("robot", str(tmp_path)), ssh_config=config, ask=False),
    ):
        pass
    assert raised.value.code == "host-key-changed"


def test_by_way_of_a_jump_host(server: Sshd, tmp_path: Path) -> None:
    config = server.write_config(
        "jump", server.port, "Match originalhost robot", "  ProxyJump jump"
    )
    log = server.folder / "sshd.log"
    before = log.read_text().count("Accepted publickey")
    root = tmp_path / "robot"
    robot = parse_robot("robot", str(root))
    with connect(robot, ssh_config=config, ask=False) as line:
        flash(line, FlashRequest(write(tmp_path), allow_unsigned=True))
    assert current(root) == "example"
    assert log.read_text().count("Accepted publickey") - before == 2


def test_a_jump_host_whose_key_is_not_known_is_refused(server: Sshd, tmp_path: Path) -> None:
    unknown = tmp_path / "nobody"
    unknown.write_text("")
    text = server.config.read_text().replace("Host robot jump", "Host robot")
    text += (
        f"  ProxyJump jump\nHost jump\n  HostName 127.0.0.1\n  Port {server.port}\n"
        f"  IdentityFile {server.folder}/client\n  StrictHostKeyChecking no\n"
        f"  UserKnownHostsFile {unknown}\n  GlobalKnownHostsFile /dev/null\n"
    )
    config = tmp_path / "config"
    config.write_text(text)
    with (
        pytest.raises(UnreachableError) as raised,
        connect(parse_robot("robot", str(tmp_path)), ssh_config=config, ask=False),
    ):
        pass
    assert raised.value.code == "host-key-unknown"
    assert unknown.read_text() == ""


def test_a_key_that_the_robot_does_not_take(server: Sshd, tmp_path: Path) -> None:
    other_key(tmp_path)
    text = server.config.read_text()
    config = tmp_path / "config"
    config.write_text(text.replace(f"{server.folder}/client", f"{tmp_path}/other"))
    with (
        pytest.raises(UnreachableError) as raised,
        connect(parse_robot("robot", str(tmp_path)), ssh_config=config, ask=False),
    ):
        pass
    assert raised.value.code == "login-refused"


def test_nobody_at_the_port_and_no_such_configuration(server: Sshd, tmp_path: Path) -> None:
    config = server.write_config("nobody", free_port())
    with (
        pytest.raises(UnreachableError) as raised,
        connect(parse_robot("robot"), ssh_config=config, ask=False),
    ):
        pass
    assert raised.value.code == "robot-unreachable"
    with (
        pytest.raises(InputError) as refused,
        connect(parse_robot("robot"), ssh_config=tmp_path / "none", ask=False),
    ):
        pass
    assert refused.value.code == "no-ssh-config"


def test_words_of_the_users_configuration_that_would_be_in_the_way(
    server: Sshd, tmp_path: Path
) -> None:
    words = ("RemoteCommand echo no", "RequestTTY force", "LocalForward 1 127.0.0.1:1")
    config = server.write_config("odd", server.port, *(f"  {word}" for word in words))
    with connect(parse_robot("robot", str(tmp_path)), ssh_config=config, ask=False) as line:
        assert probe(line).system == "Linux"


def test_a_machine_without_ssh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LibraError) as raised, connect(parse_robot("robot"), ask=False):
        pass
    assert raised.value.code == "no-ssh"


def test_sshs_words_become_ours() -> None:
    robot = parse_robot("robot")
    for words, code in (
        ("@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n", "host-key-changed"),
        ("No ED25519 host key is known for robot and you have requested\n", "host-key-unknown"),
        ("u@robot: Permission denied (publickey).\n", "login-refused"),
        ("ssh: connect to host robot port 22: Connection timed out\n", "robot-unreachable"),
        ("", "robot-unreachable"),
    ):
        assert not_reached(robot, words).code == code


def test_a_login_shell_that_talks(tmp_path: Path) -> None:
    noisy = 'ForceCommand echo Welcome; echo \'{"ok": 1\'; eval "$SSH_ORIGINAL_COMMAND"; echo bye'
    with sshd(tmp_path / "sshd", noisy) as server:
        assert put(server, tmp_path / "robot", write(tmp_path)).condition == "active"
    assert current(tmp_path / "robot") == "example"


def test_an_account_without_a_shell(tmp_path: Path) -> None:
    with (
        sshd(tmp_path / "sshd", "ForceCommand echo This account is for files") as server,
        pytest.raises(UnreachableError) as raised,
    ):
        put(server, tmp_path / "robot", write(tmp_path))
    assert raised.value.code == "no-shell"


def on_a_terminal(words: list[str], answers: dict[bytes, bytes]) -> tuple[int, str]:
    """Run a program on a terminal of its own and answer what it asks."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvp(words[0], words)
    shown = b""
    with suppress(OSError):  # the terminal closes with its program
        while piece := os.read(terminal, 4096):
            shown += piece
            for question in [q for q in answers if q in shown]:
                os.write(terminal, answers.pop(question))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


@pytest.mark.parametrize("answer", ["no", "yes"])
def test_on_a_terminal_a_person_is_asked_about_a_host_key(
    server: Sshd, tmp_path: Path, answer: str
) -> None:
    known = server.folder / "asked.known"
    config = server.write_config("asked", server.port, known="# nobody\n")
    run = [sys.executable, "-c", "from libra_edge.cli.app import main; main()"]
    words = ["status", "robot", "-F", str(config), "--root", str(tmp_path / "robot")]
    status, shown = on_a_terminal([*run, *words], {b"continue connecting": f"{answer}\n".encode()})
    assert status == 6
    assert "fingerprint" in shown
    if answer == "no":
        assert "host-key-unknown" in shown
        assert known.read_text() == "# nobody\n"
    else:
        assert "no-agent" in shown
        assert "ssh-ed25519" in known.read_text()


def test_a_program_that_is_killed_leaves_no_connection_for_long(
    server: Sshd, tmp_path: Path
) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from libra_edge.deploy import robot, transport\n"
        "with transport.connect(robot.parse_robot('robot', sys.argv[2]), ask=False,\n"
        "        ssh_config=pathlib.Path(sys.argv[1])) as line:\n"
        "    print(line.ssh[line.ssh.index('-F') + 1], flush=True)\n"
        "    time.sleep(60)\n"
    )
    words = [sys.executable, "-c", code, str(server.config), str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip()).parent
        process.kill()
    socket = folder / "m"
    for _ in range(200):
        if not socket.exists():
            break
        time.sleep(0.05)
    assert not socket.exists()
    shutil.rmtree(folder)
