"""`libra-edge status`."""

from __future__ import annotations

from dataclasses import asdict

from libra_edge.deploy.state import require_agent

from ._options import Json
from ._render import Output
from ._robots import RobotName, Root, SshConfig, health, open_line, slot_table


def status(
    robot: RobotName, root: Root = None, ssh_config: SshConfig = None, json: Json = False
) -> None:
    """Show what a robot runs, what its slots hold, and whether it was marked good."""
    output = Output("status", json)
    with open_line(robot, root, ssh_config, json) as line:
        _, state = require_agent(line)
    slot_table(output, state)
    output.text(f"health: {health(state)}")
    output.finish(asdict(state), f"{robot} runs {state.running}")
