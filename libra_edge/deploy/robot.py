"""Where a robot is: `user@host[:port]`, an alias of the user's ssh_config, or a folder here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from libra_edge.errors import InputError

ROOT = PurePosixPath("/opt/libra")
# ssh reads no word of these as an option, and no shell as anything but a word.
_USER = r"[A-Za-z0-9_][\w.@+\\-]{0,255}"
_HOST = r"[A-Za-z0-9_][\w.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}(?:%[\w.-]{1,32})?\]"
_ADDRESS = re.compile(rf"(?:ssh://)?(?:({_USER})@)?({_HOST})(?::([0-9]{{1,5}}))?/?", re.ASCII)


@dataclass(frozen=True)
class Robot:
    """One robot and its folder.

    Args:
        text: as the user named it.
        host: name, alias or address for ssh; None if the robot is this machine.
        root: the robot's folder, with slots and state.
        user: to log in as; None leaves that to ssh.
        port: of sshd; None leaves that to ssh.
    """

    text: str
    host: str | None
    root: PurePosixPath
    user: str | None = None
    port: int | None = None


def parse_robot(text: str, root: str | None = None) -> Robot:
    """Read how a user names a robot. What holds a slash is a folder of this machine.

    Args:
        text: `user@host[:port]`, `ssh://…`, an alias, or the path of a robot's folder.
        root: the robot's folder over SSH; None is `/opt/libra`.

    Raises:
        InputError: it is none of these, or names the folder twice.
    """
    if not text.startswith("ssh://") and ("/" in text or text in (".", "..")):
        if root is not None:
            raise InputError(
                "robot-twice",
                f"{text} is a robot's folder on this machine, and --root names {root}.",
                "Leave --root out; it is for robots that are reached over SSH.",
            )
        return Robot(text, None, _folder(str(Path(text).expanduser().resolve())))
    found = _ADDRESS.fullmatch(text)
    port = int(found[3]) if found and found[3] else None
    if not found or (port is not None and not 0 < port < 65536):
        raise InputError(
            "robot-invalid",
            f"{text!r} names no robot.",
            "Write user@host, user@host:port, an alias of ~/.ssh/config, or a path (./folder).",
        )
    return Robot(
        text, found[2].strip("[]"), _folder(str(ROOT) if root is None else root), found[1], port
    )


def _folder(text: str) -> PurePosixPath:
    path = PurePosixPath(text)
    plain = text.isprintable() and ".." not in path.parts and len(text) <= 1024
    if not path.is_absolute() or len(path.parts) < 2 or not plain:
        raise InputError(
            "root-invalid",
            f"{text!r} cannot be a robot's folder.",
            "Name an absolute path without '..', for example /opt/libra.",
        )
    return path
