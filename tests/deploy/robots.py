"""Robots for tests: releases with the stand-in agent, and a real sshd on loopback."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from libra_edge.bundle.manifest import ReleaseFacts
from libra_edge.bundle.members import AGENT
from libra_edge.bundle.pack import write_release
from tests.bundle.examples import facts_body, files

GOLDEN = "golden/actions.npy"
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_sshd = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh-keygen") is None,
    reason="needs sshd (Debian: apt-get install openssh-server)",
)


def agent_bytes() -> bytes:
    source = Path(__file__).with_name("stand_in_agent.py").read_bytes()
    return f"#!{sys.executable} -I\n".encode() + source


def write(folder: Path, name: str = "example", **changes: Any) -> Path:
    """A release with the stand-in agent; `members` replace bytes, other words the facts."""
    members: dict[str, bytes] = {**files(), AGENT: agent_bytes(), **changes.pop("members", {})}
    facts = ReleaseFacts.model_validate(facts_body(name) | changes)
    write_release(folder / name, facts, members)
    return folder / name


def current(root: Path) -> str:
    """What a robot runs: the name in the manifest below `current`."""
    import json

    return str(json.loads((root / "current" / "manifest.json").read_bytes())["name"])


@dataclass(frozen=True)
class Sshd:
    """A running sshd, and a configuration with which `ssh -F` reaches it as `robot`."""

    port: int
    folder: Path
    config: Path
    host_key: Path
    user: str

    def write_config(self, name: str, port: int, *more: str, known: str = "") -> Path:
        """Another configuration: the same robot through another port, or with other words."""
        path = self.folder / name
        hosts = self.folder / f"{name}.known"
        key = " ".join(self.host_key.with_suffix(".pub").read_text().split()[:2])
        hosts.write_text(known or f"[127.0.0.1]:{port} {key}\n[127.0.0.1]:{self.port} {key}\n")
        lines = [
            "Host robot jump",
            "  HostName 127.0.0.1",
            f"  Port {port}",
            f"  User {self.user}",
            f"  IdentityFile {self.folder / 'client'}",
            "  IdentitiesOnly yes",
            f"  UserKnownHostsFile {hosts}",
            "  GlobalKnownHostsFile /dev/null",
            *more,
        ]
        path.write_text("\n".join(lines) + "\n")
        return path


@contextlib.contextmanager
def sshd(folder: Path, *more: str, user: str = "") -> Iterator[Sshd]:
    """Start an sshd of our own: own host key, own configuration, own port.

    Args:
        folder: for its keys, configuration and log.
        more: lines for its configuration.
        user: who may log in; default: this user. Another one's home holds its key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host", "client"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    authorized = folder / "authorized"
    if user:
        authorized = Path(f"~{user}/authorized").expanduser()
    authorized.write_bytes((folder / "client.pub").read_bytes())
    with contextlib.suppress(PermissionError):  # where sshd drops its privileges to
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {authorized}\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\n"
        "MaxStartups 100\n" + "".join(f"{line}\n" for line in more)
    )
    log = (folder / "sshd.log").open("wb")
    process = subprocess.Popen(
        [str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log
    )
    try:
        _wait_for(port, process, folder / "sshd.log")
        made = Sshd(port, folder, folder / "config", folder / "host", user or getpass.getuser())
        made.write_config("config", port)
        yield made
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text()[-300:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.fail("sshd does not listen")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _shut(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Cutter:
    """A relay to sshd that cuts connections, each after as many bytes to the robot as it is told.

    Args:
        port: of sshd.
        limits: bytes for each connection in turn; None, and every later one, is never cut.
    """

    def __init__(self, port: int, *limits: int | None) -> None:
        self.limits = list(limits)
        self.cut = 0
        self._open: list[socket.socket] = []
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                limit = self.limits.pop(0) if self.limits else None
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open += [client, server]
                for words in ((client, server, limit), (server, client, None)):
                    threading.Thread(target=self._relay, args=words, daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        left = limit
        with contextlib.suppress(OSError):
            while piece := source.recv(65536 if left is None else max(1, min(left, 65536))):
                sink.sendall(piece)
                if left is not None:
                    left -= len(piece)
                    if left <= 0:
                        self.cut += 1
                        break
        _shut(source, sink)

    def sever(self) -> None:
        """Cut every connection now; later ones are carried."""
        self.cut += 1
        _shut(*self._open)

    def close(self) -> None:
        self._listener.close()
