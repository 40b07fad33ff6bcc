"""The work of `libra.edge.libra_release`: the same code as `libra-edge flash`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from libra_edge.deploy.fleet.states import StateRequest, reach_state
from libra_edge.deploy.robot import Robot, parse_robot
from libra_edge.deploy.transport import connect
from libra_edge.errors import InputError, LibraError, UnreachableError

ARGUMENTS = {
    "release": {"type": "path", "required": True},
    "state": {"choices": ["active", "installed", "good", "rolled_back"], "default": "active"},
    "root": {"type": "path", "default": "/opt/libra"},
    "allow_unsigned": {"type": "bool", "default": False},
    "mark_good": {"type": "bool", "default": False},
    "health_timeout_s": {"type": "int"},
    "wait_s": {"type": "float", "default": 0},
    "ssh_config": {"type": "path"},
}


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible's classes are untyped
    """See the module's documentation."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """One task on one robot."""
        super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(argument_spec=ARGUMENTS)
        request = StateRequest(
            Path(given["release"]),
            given["state"],
            allow_unsigned=given["allow_unsigned"],
            mark_good=given["mark_good"],
            health_timeout_s=given["health_timeout_s"],
            wait_s=given["wait_s"],
            check=bool(self._task.check_mode),
        )
        config = Path(given["ssh_config"]) if given["ssh_config"] else None
        try:
            robot, words = self._robot(given["root"])
            with connect(robot, ssh_config=config, ask=False, more=words) as line:
                return reach_state(line, request)
        except UnreachableError as error:
            return {"unreachable": True, "msg": f"{error.fact} {error.remedy}", "code": error.code}
        except LibraError as error:
            return {"failed": True, "msg": f"{error.fact} {error.remedy}", "code": error.code}

    def _robot(self, root: str) -> tuple[Robot, tuple[str, ...]]:
        """The robot as the inventory says it is reached, and words for ssh."""
        kind = self._connection.transport
        if kind == "local":
            return parse_robot(root), ()
        if kind != "ssh":
            raise InputError(
                "connection-unknown",
                f"A robot is reached over ssh, and the inventory says {kind}.",
                "Leave ansible_connection out, or set it to ssh (local for this machine).",
            )
        option = self._connection.get_option
        host, user, port = (option(name) for name in ("host", "remote_user", "port"))
        address = f"[{host}]" if ":" in host else host
        text = f"{user}@{address}" if user else address
        robot = parse_robot(f"{text}:{port}" if port else text, root)
        key = option("private_key_file")
        words = ["-i", key] if key else []
        for name in ("ssh_common_args", "ssh_extra_args"):
            words += shlex.split(option(name) or "")
        return robot, tuple(words)
