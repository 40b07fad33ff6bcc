"""What the commands for robots share: how a robot is named, reached and shown."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from libra_edge.deploy.preflight import Check
from libra_edge.deploy.robot import parse_robot
from libra_edge.deploy.state import RobotState
from libra_edge.deploy.transport import Line, connect

from ._render import Output

RobotName = Annotated[
    str,
    typer.Argument(help="user@host[:port], an alias of ssh_config, or a path.", metavar="ROBOT"),
]
Root = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="The robot's folder.", show_default="/opt/libra"),
]
SshConfig = Annotated[
    Path | None,
    typer.Option(
        "--ssh-config", "-F", metavar="FILE", help="As ssh -F.", show_default="the user's"
    ),
]


def open_line(
    robot: str, root: str | None, ssh_config: Path | None, json: bool
) -> AbstractContextManager[Line]:
    """A line to the robot that a user named; with `json` nobody is asked anything."""
    return connect(parse_robot(robot, root), ssh_config=ssh_config, ask=False if json else None)


def check_table(output: Output, checks: Sequence[Check]) -> None:
    """One row per check of a robot."""
    output.table(
        ("check", "status", "found", "needed"),
        [(check.name, check.status, check.found, check.needed) for check in checks],
    )


def slot_table(output: Output, state: RobotState) -> None:
    """Both slots; what runs has a star."""
    rows: list[tuple[object, ...]] = []
    for name, slot in sorted(state.slots.items()):
        mark = f"{name} *" if name == state.active else name
        if slot is None:
            rows.append((mark, "empty", "", "", "", "", ""))
            continue
        key = slot.key_id[:8] if slot.key_id else "unsigned"
        identity = slot.manifest_sha256[:12]
        rows.append(
            (mark, slot.state, slot.release, slot.recipe, identity, key, slot.security_epoch)
        )
    output.table(("slot", "state", "release", "recipe", "identity", "key", "epoch"), rows)


def health(state: RobotState) -> str:
    """Whether what runs was marked good, in words."""
    if state.active is None:
        return "no release is active"
    if state.is_good:
        return "marked good"
    if state.deadline_unix_s is None:
        return "not marked good"
    until = datetime.fromtimestamp(state.deadline_unix_s, UTC).strftime("%H:%M:%S UTC")
    return f"rolls back at {until} unless it is marked good"
