"""`libra-edge doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from libra_edge.deploy.doctor import examine
from libra_edge.deploy.flash import examine_robot
from libra_edge.deploy.preflight import Check
from libra_edge.errors import ExitCode

from ._options import Json
from ._render import Output
from ._robots import Root, SshConfig, check_table, open_line


def doctor(
    extra: Annotated[
        list[str] | None,
        typer.Option("--extra", help="Fail unless this extra is complete; may be repeated."),
    ] = None,
    robot: Annotated[
        str | None,
        typer.Option(
            metavar="ROBOT",
            help="Check a robot: user@host[:port], an alias, or a path.",
            show_default="this machine",
        ),
    ] = None,
    root: Root = None,
    ssh_config: SshConfig = None,
    json: Json = False,
) -> None:
    """Check this machine, or a robot: what was found, what is needed, how to fix it.

    Without --extra only what the field needs can fail; the rest is shown.
    """
    output = Output("doctor", json)
    if robot is not None:
        with open_line(robot, root, ssh_config, json) as line:
            found = examine_robot(line)
        _robot(output, robot, found)
        return
    checks = examine(frozenset(extra or ()))
    output.table(
        ("check", "status", "found", "needed"),
        [(check.name, check.status, check.found, check.needed) for check in checks],
    )
    fixes = {check.name: check.fix for check in checks if check.fix}
    if fixes:
        output.text("")
        output.facts("to add", fixes)
    missing = [check.name for check in checks if check.status == "missing"]
    output.finish(
        {"checks": [asdict(check) for check in checks]},
        f"missing: {', '.join(missing)}" if missing else "this machine has what was asked for",
        exit_code=ExitCode.FAILED if missing else ExitCode.OK,
        next_command=None if missing else ("targets",),
    )


def _robot(output: Output, robot: str, checks: list[Check]) -> None:
    check_table(output, checks)
    refused = [check for check in checks if check.status == "refused"]
    if refused:
        output.text("")
        output.facts("to mend", {check.name: check.remedy for check in refused})
    output.finish(
        {"robot": robot, "checks": [asdict(check) for check in checks]},
        f"{robot} takes no release now: {', '.join(check.name for check in refused)}"
        if refused
        else f"{robot} can take a release",
        exit_code=ExitCode.FAILED if refused else ExitCode.OK,
        next_command=None if refused else ("status", robot),
    )
