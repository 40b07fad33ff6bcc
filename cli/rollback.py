"""`libra-edge rollback`."""

from __future__ import annotations

from dataclasses import asdict

from libra_edge.deploy.state import roll_back

from ._options import Json
from ._render import Output, say
from ._robots import RobotName, Root, SshConfig, open_line


def rollback(
    robot: RobotName, root: Root = None, ssh_config: SshConfig = None, json: Json = False
) -> None:
    """Switch a robot back to the release that it ran before.

    What it runs now stays in its slot; a second rollback switches to it again.
    """
    output = Output("rollback", json)
    with open_line(robot, root, ssh_config, json) as line:
        before, after = roll_back(line)
    say(f"rollback: {robot} ran {before.running}")
    output.finish(
        {"before": asdict(before), "after": asdict(after)}, f"{robot} runs {after.running} again"
    )
