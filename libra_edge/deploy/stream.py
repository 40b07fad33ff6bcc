"""What has to cross to a robot, and the bytes that do (`libra-install 1`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libra_edge.bundle.members import MANIFEST
from libra_edge.bundle.verify import Release
from libra_edge.deploy.agent import Agent
from libra_edge.errors import LibraError

PIECE_BYTES = 256 * 1024
_FIRST_LINE = b"libra-install 1\n"


@dataclass(frozen=True)
class Part:
    """What is missing of one member: its bytes from `offset` on."""

    name: str
    sha256: str
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class Plan:
    """What an installation sends.

    parts: of members that neither a slot nor an earlier try holds; needs_bytes: what the robot
    writes; free_bytes: what it has for that.
    """

    parts: tuple[Part, ...]
    needs_bytes: int
    free_bytes: int | None

    @property
    def send_bytes(self) -> int:
        """Bytes of members that cross the line."""
        return sum(part.size_bytes for part in self.parts)


def everything(release: Release, free_bytes: int | None) -> Plan:
    """The plan for a robot that holds nothing yet."""
    members = sorted(release.manifest.members.items())
    parts = tuple(Part(name, m.sha256, 0, m.size_bytes) for name, m in members)
    return Plan(parts, sum(part.size_bytes for part in parts), free_bytes)


def ask_missing(agent: Agent, release: Release) -> Plan:
    """What an agent says that it still lacks of a release.

    Raises:
        LibraError: as `Agent.ask`, or the answer is about another release.
    """
    said = agent.ask("missing", feed=[release.manifest.to_bytes()])
    try:
        parts = tuple(_part(release, wanted) for wanted in said["members"])
        needs, free = _count(said["needs_bytes"]), _count(said["free_bytes"])
    except (KeyError, TypeError, ValueError):
        raise LibraError(
            "agent-answer",
            f"The agent on {agent.line.robot.text} does not say which members it lacks.",
            "Flash with the libra-edge of the agent's age, or install with the agent itself.",
        ) from None
    return Plan(parts, needs, free)


def _part(release: Release, wanted: Mapping[str, Any]) -> Part:
    name, have = str(wanted["name"]), _count(wanted.get("have_bytes", 0))
    member = release.manifest.members[name]
    if have > member.size_bytes or wanted["sha256"] != member.sha256:
        raise ValueError(name)
    return Part(name, member.sha256, have, member.size_bytes - have)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(value)
    return value


def install_stream(
    release: Release, signature: bytes, plan: Plan, on_sent: Callable[[int], None]
) -> Iterator[bytes]:
    """The bytes that `libra-agent install -` reads.

    Args:
        release: to be installed.
        signature: its `model.sig`, or nothing.
        plan: the parts to send, in this order.
        on_sent: called with the size of each piece of a member, as the next one is asked for.

    Raises:
        LibraError: the release's files went away or became shorter meanwhile.
    """
    manifest = release.manifest.to_bytes()
    members = [
        {"name": p.name, "sha256": p.sha256, "offset": p.offset, "bytes": p.size_bytes}
        for p in plan.parts
    ]
    sizes = {"manifest_bytes": len(manifest), "signature_bytes": len(signature)}
    head = json.dumps({**sizes, "members": members}).encode() + b"\n"
    yield _FIRST_LINE + head + manifest + signature
    for part in plan.parts:
        for piece in _pieces(release.member(part.name), part):
            yield piece
            on_sent(len(piece))


def _pieces(path: Path, part: Part) -> Iterator[bytes]:
    left = part.size_bytes
    try:
        with path.open("rb") as source:
            source.seek(part.offset)
            while left and (piece := source.read(min(left, PIECE_BYTES))):
                left -= len(piece)
                yield piece
    except OSError as error:
        raise _gone(part.name, error.strerror or str(error)) from None
    if left:
        raise _gone(part.name, f"ends {left} bytes early")


def _gone(name: str, why: str) -> LibraError:
    return LibraError(
        "source-lost",
        f"{name if name != MANIFEST else MANIFEST} of the release went away while it was sent: "
        f"{why}.",
        "The robot still runs what it ran; bring the release back and flash again: what arrived "
        "is kept.",
    )
