"""`libra-edge rollback`."""

from __future__ import annotations

from dataclasses import asdict

from libra_edge.deploy.flash import ACTIVATE_TIMEOUT_S
from libra_edge.deploy.state import read_state, require_agent

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
        agent, before = require_agent(line)
        say(f"rollback: {robot} runs {before.running}")
        agent.ask("rollback", timeout_s=ACTIVATE_TIMEOUT_S)
        after = read_state(agent)
    output.finish(
        {"before": asdict(before), "after": asdict(after)}, f"{robot} runs {after.running} again"
    )
