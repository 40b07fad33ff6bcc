"""Run programs on a robot: over the system's own `ssh`, or on this machine.

One connection is made per robot, with whatever the user's configuration says (keys, agent, jump
hosts, hardware keys); every later command shares it through a socket in a private folder. What the
user's files say of host keys can make them stricter, never looser: a key that is not known is
asked about on a terminal and refused anywhere else.
"""

from __future__ import annotations

import os
import pwd
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from libra_edge.deploy.robot import Robot
from libra_edge.errors import InputError, LibraError, UnreachableError

LOGIN_TIMEOUT_S = 300.0  # a person may be typing a passphrase, or looking for a hardware key
STALL_S = 120.0  # without a byte taken at the other end
MAX_ANSWER_BYTES = 4 * 1024 * 1024
LOST = 255  # what ssh leaves with when the connection is the trouble
# The first word on a key wins, so these stand before the user's own files, and hold for jump hosts
# too, which ssh starts with the same file.
_STRICT = ("NoHostAuthenticationForLocalhost no", "VerifyHostKeyDNS no", "UpdateHostKeys no")
_LAST = """\
Host *
  ConnectTimeout 15
  ServerAliveInterval 10
  ServerAliveCountMax 4
"""
_GREETING = b"libra-edge is here"
_STAY = f"echo '{_GREETING.decode()}'; exec cat"
_PLAIN = ("-T", "-a", "-x", "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none")


@dataclass(frozen=True)
class Answer:
    """What a program on the robot left.

    lost: whether it was cut off, so that nobody knows how it would have ended.
    """

    status: int
    stdout: bytes
    stderr: str
    lost: bool


@dataclass(frozen=True)
class Line:
    """A way to run programs on one robot.

    Args:
        robot: the robot.
        ssh: words that lead to it; empty for this machine.
    """

    robot: Robot
    ssh: tuple[str, ...] = ()

    def run(
        self, words: Sequence[str], feed: Iterable[bytes] = (), *, timeout_s: float = 60.0
    ) -> Answer:
        """Run one program and wait for its end.

        Args:
            words: the program and its arguments.
            feed: its standard input, piece by piece.
            timeout_s: how long it may take after the last piece.

        Raises:
            LibraError: `feed` failed; or there is no such program as ssh here.
        """
        command = [*self.ssh, shlex.join(words)] if self.ssh else list(words)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            try:
                status, whole = _run(command, feed, out, errors, timeout_s)
            except FileNotFoundError:
                if self.ssh:
                    raise no_ssh() from None
                status, whole = 127, True
            except PermissionError:
                status, whole = 126, True
            except OSError as error:  # no executable of this machine
                errors.write(str(error).encode())
                status, whole = 126, True
            answer, words_of_it = _head(out), _head(errors).decode("utf-8", "replace")
        lost = not whole or status < 0 or (bool(self.ssh) and status == LOST)
        return Answer(status, answer, words_of_it, lost)


def _run(
    command: Sequence[str],
    feed: Iterable[bytes],
    out: IO[bytes],
    errors: IO[bytes],
    timeout_s: float,
) -> tuple[int, bool]:
    """The exit status, and whether the program ended by itself."""
    # In a session of its own: Ctrl-C reaches us alone, and we decide what ends and when.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=out, stderr=errors, start_new_session=True
    )
    try:
        taken = process.stdin is not None and _feed(process.stdin, feed)
        return process.wait(timeout_s if taken else 0), True
    except subprocess.TimeoutExpired:
        return _end(process), False
    except BaseException:
        _end(process)
        raise


def _feed(stdin: IO[bytes], feed: Iterable[bytes]) -> bool:
    """Write every piece; False if the other end takes nothing for too long.

    A program that closes its input has its reasons, and tells them in its answer.
    """
    descriptor = stdin.fileno()
    os.set_blocking(descriptor, False)
    try:
        for piece in feed:
            left = memoryview(piece)
            while left:
                if not select.select([], [descriptor], [], STALL_S)[1]:
                    return False
                with suppress(BlockingIOError):
                    left = left[os.write(descriptor, left) :]
    except BrokenPipeError:
        pass
    finally:
        stdin.close()
    return True


def _end(process: subprocess.Popen[bytes]) -> int:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        return process.wait(5)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _head(stream: IO[bytes]) -> bytes:
    stream.seek(0)
    return stream.read(MAX_ANSWER_BYTES)


@contextmanager
def connect(
    robot: Robot,
    *,
    ssh_config: Path | None = None,
    ask: bool | None = None,
    more: Sequence[str] = (),
) -> Iterator[Line]:
    """Open a line to a robot, and close it at the end.

    Args:
        robot: the robot.
        ssh_config: replaces the user's and the system's files, as `ssh -F` does.
        ask: whether ssh may ask for a passphrase or about a host key; None: on a terminal.
        more: words for ssh, as an inventory has them; they cannot loosen what is said of host keys.

    Raises:
        UnreachableError: no connection, another host key than the known one, or no login.
        InputError: `ssh_config` is not there.
    """
    if robot.host is None:
        yield Line(robot)
        return
    if ssh_config is not None and not ssh_config.is_file():
        raise InputError(
            "no-ssh-config", f"{ssh_config} is not a file.", "Name a file in ssh_config's form."
        )
    asking = sys.stdin.isatty() and sys.stderr.isatty() if ask is None else ask
    with _private_folder() as folder:
        config = folder / "config"
        config.write_text(_configuration(ssh_config, asking))
        words = ["ssh", "-F", str(config), *_PLAIN, "-o", f"ControlPath={folder}/m"]
        for strict in _strict(asking):
            words += ["-o", strict.replace(" ", "=", 1)]
        words += more
        if robot.user is not None:
            words += ["-l", robot.user]
        if robot.port is not None:
            words += ["-p", str(robot.port)]
        line = Line(robot, (*words, "-o", "ControlMaster=no", "-o", "BatchMode=yes", robot.host))
        with _logged_in([*words, "-o", "ControlMaster=yes"], robot, folder, asking):
            yield line


@contextmanager
def _private_folder() -> Iterator[Path]:
    # A socket's path has at most 107 bytes, and a folder for temporary files may be deep.
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    short = base if len(base) < 60 and os.access(base, os.W_OK) else "/tmp"
    with tempfile.TemporaryDirectory(prefix="libra-edge-", dir=short) as folder:
        yield Path(folder)


def _configuration(ssh_config: Path | None, asking: bool) -> str:
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # where ssh looks, whatever HOME says
    files = (
        [ssh_config.absolute()]
        if ssh_config
        else [home / ".ssh" / "config", Path("/etc/ssh/ssh_config")]
    )
    lines = [*_strict(asking), *(f'Include "{path}"' for path in files)]
    return "\n".join(lines) + f"\n{_LAST}"


def _strict(asking: bool) -> tuple[str, ...]:
    return (f"StrictHostKeyChecking {'ask' if asking else 'yes'}", *_STRICT)


@contextmanager
def _logged_in(words: list[str], robot: Robot, folder: Path, asking: bool) -> Iterator[None]:
    """The connection that others share. It ends with its input: also when we are killed."""
    log = folder / "log"
    batch = "no" if asking else "yes"
    # The jump host's ssh would lose its words on host keys with ControlPersist, or with -f.
    command = [*words, "-E", str(log), "-o", f"BatchMode={batch}", str(robot.host), _STAY]
    with tempfile.TemporaryFile() as errors:
        try:
            # ssh asks on the terminal itself; what it says there (touch the key) is for a person.
            master = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if asking else errors,
            )
        except FileNotFoundError:
            raise no_ssh() from None
        try:
            if not _greets(master):
                status = _close(master)
                said = _head(errors).decode("utf-8", "replace")
                said += log.read_text("utf-8", "replace") if log.exists() else ""
                gone = status in (LOST, -signal.SIGTERM)
                raise not_reached(robot, said) if gone else no_shell(robot, said)
            yield
        finally:
            _close(master)


def _greets(master: subprocess.Popen[bytes]) -> bool:
    """Wait until the shell on the robot says our word, whatever it says before."""
    if master.stdout is None:
        return False
    said = b""
    until = time.monotonic() + LOGIN_TIMEOUT_S
    while len(said) < MAX_ANSWER_BYTES and (left_s := until - time.monotonic()) > 0:
        if not select.select([master.stdout], [], [], left_s)[0]:
            break
        piece = os.read(master.stdout.fileno(), 4096)
        said += piece
        if _GREETING in said:
            return True
        if not piece:
            break
    return False


def _close(master: subprocess.Popen[bytes]) -> int:
    for pipe in (master.stdin, master.stdout):
        if pipe:
            pipe.close()
    try:
        return master.wait(5)
    except subprocess.TimeoutExpired:
        master.terminate()
        return master.wait()


def no_ssh() -> LibraError:
    """The error where this machine has no ssh."""
    return LibraError(
        "no-ssh",
        "This machine has no program `ssh`.",
        "Install OpenSSH's client (Debian: apt-get install openssh-client).",
    )


def no_shell(robot: Robot, said: str) -> UnreachableError:
    """The error where a login runs no commands."""
    first = (said.strip().splitlines() or ["it ends at once"])[0]
    return UnreachableError(
        "no-shell",
        f"{robot.text} lets us in but runs no shell for us: {first}.",
        "See that the account's login shell runs commands that ssh hands it.",
    )


def not_reached(robot: Robot, said: str) -> UnreachableError:
    """What ssh's own words mean for whoever wants to reach a robot."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if not line.startswith("@")), "ssh said nothing")
    if "IDENTIFICATION HAS CHANGED" in said:
        return UnreachableError(
            "host-key-changed",
            f"{robot.text} shows another host key than the one that is known.",
            "Find out why (a robot set up anew, or someone between) before you do anything; then "
            "remove the old key with `ssh-keygen -R`.",
        )
    if re.search(r"[Hh]ost key verification failed|host key is known", said):
        return UnreachableError(
            "host-key-unknown",
            f"The host key of {robot.text} is not known here, and it is never taken unseen.",
            "Log in once with `ssh`, compare the fingerprint with the robot's, and answer yes.",
        )
    if "Permission denied" in said or "Too many authentication failures" in said:
        return UnreachableError(
            "login-refused",
            f"{robot.text} does not let us in: {last}.",
            "See that `ssh` alone gets in: user, key, agent. Without a terminal nothing is asked.",
        )
    folder = f" For the folder, write ./{robot.text}." if Path(robot.text).is_dir() else ""
    return UnreachableError(
        "robot-unreachable",
        f"{robot.text} cannot be reached: {last}.",
        f"See that `ssh` alone gets there.{folder}",
    )
