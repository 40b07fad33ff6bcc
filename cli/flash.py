"""`libra-edge flash`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from libra_edge.deploy.flash import Flashed, FlashRequest
from libra_edge.deploy.flash import flash as deploy
from libra_edge.deploy.fleet.playbook import WAVES, FleetRequest, FleetResult, flash_fleet
from libra_edge.deploy.preflight import size
from libra_edge.deploy.stick import Carried, carry
from libra_edge.errors import ExitCode, InputError

from ._options import Json
from ._progress import progress
from ._render import Output, say
from ._robots import Root, SshConfig, check_table, health, open_line


def flash(
    release: Annotated[
        Path, typer.Argument(help="Release (directory or .libra).", metavar="RELEASE")
    ],
    robot: Annotated[
        str | None,
        typer.Argument(
            help="user@host[:port], an alias of ssh_config, or a path.",
            metavar="ROBOT",
            show_default="--inventory's",
        ),
    ] = None,
    inventory: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Robots for Ansible, flashed in waves.", show_default=""),
    ] = None,
    waves: Annotated[
        str, typer.Option(metavar="LIST", help="Of a fleet: the canary first, then the rest.")
    ] = WAVES,
    max_fail_percentage: Annotated[
        float, typer.Option(min=0, max=100, help="Of a wave that may fail before it all ends.")
    ] = 0,
    limit: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Robots of the inventory.", show_default="all"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan; change nothing.")
    ] = False,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Take a release without signature.")
    ] = False,
    activate: Annotated[
        bool, typer.Option(help="Switch to it once its self-test has passed.")
    ] = True,
    health_timeout: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=86_400,
            metavar="SECONDS",
            help="How long the robot waits for mark-good.",
            show_default="the agent's",
        ),
    ] = None,
    wait: Annotated[
        float,
        typer.Option(
            min=0, max=86_400, metavar="SECONDS", help="Wait until the robot is marked good."
        ),
    ] = 0,
    mark_good: Annotated[
        bool,
        typer.Option("--mark-good", help="Mark it good right away: no service there does so."),
    ] = False,
    stick: Annotated[
        bool, typer.Option("--stick", help="ROBOT is a folder that carries it there by hand.")
    ] = False,
    root: Root = None,
    ssh_config: SshConfig = None,
    json: Json = False,
) -> None:
    """Put a release on a robot: it runs the new policy, or still the old one.

    Looked at first, then only what the robot lacks is sent, checked and replayed there, and
    switched to by one rename. Run it again after a broken line: it goes on where it broke.
    """
    output = Output("flash", json)
    if (robot is None) == (inventory is None):
        raise InputError(
            "robot-or-inventory",
            "Name one robot, or a fleet with --inventory.",
            "`libra-edge flash RELEASE user@host`, or `libra-edge flash RELEASE --inventory FILE`.",
        )
    if inventory is not None:
        if stick or not activate:
            raise InputError(
                "option-for-one-robot",
                "--stick and --no-activate are for one robot.",
                "Leave them out, or use the module libra.edge.libra_release in a playbook.",
            )
        fleet = FleetRequest(
            release,
            inventory,
            waves,
            max_fail_percentage,
            limit,
            root,
            ssh_config,
            check=dry_run,
            allow_unsigned=allow_unsigned,
            mark_good=mark_good,
            health_timeout_s=health_timeout,
            wait_s=wait or None,
        )
        _fleet(output, fleet, flash_fleet(fleet, say))
        return
    robot = str(robot)
    request = FlashRequest(
        release,
        dry_run=dry_run,
        allow_unsigned=allow_unsigned,
        activate=activate,
        health_timeout_s=health_timeout,
        mark_good=mark_good,
        wait_s=wait,
    )
    if stick:
        _carried(output, carry(Path(robot), request))
        return
    with open_line(robot, root, ssh_config, json) as line:
        done = deploy(line, request, on_stage=lambda text: say(f"flash: {text}"), sending=_sending)
    _show(output, done)
    if done.after:
        output.text(f"health: {health(done.after)}")
    next_command = ("status", robot, *(("-F", ssh_config) if ssh_config else ()))
    next_command += ("--root", root) if root else ()
    output.finish(done.to_json(), _verdict(done), next_command=next_command)


def _fleet(output: Output, request: FleetRequest, done: FleetResult) -> None:
    rows = [
        (said["wave"], name, "FAILED" if said["failed"] else said["condition"], _found(said))
        for name, said in sorted(done.robots.items(), key=lambda pair: (pair[1]["wave"], pair[0]))
    ]
    output.table(("wave", "robot", "release", ""), rows)
    what = f"{done.release} ({done.release_id[:12]})"
    count = f"{len(done.robots) - len(done.failed)} of {len(done.robots)} robots that were reached"
    verb = "would run" if request.check else "run"
    output.finish(
        done.to_json(),
        f"{count} {verb} {what}",
        exit_code=ExitCode.OK if done.complete and not done.failed else ExitCode.FAILED,
    )


def _found(said: Mapping[str, Any]) -> str:
    return str(said.get("code", "")) if said["failed"] else str(said.get("runs", ""))


def _carried(output: Output, done: Carried) -> None:
    output.facts(
        "on the robot, in the stick's folder",
        {str(n): command for n, command in enumerate(done.commands, 1)},
    )
    words = {"carried": "lies in", "already there": "already lies in", "planned": "would lie in"}
    what = f"{done.release} ({done.release_id[:12]}, {size(done.size_bytes)})"
    output.finish(done.to_json(), f"{what} {words[done.condition]} {done.file}")


@contextmanager
def _sending(total_bytes: int) -> Iterator[Callable[[int], None]]:
    with progress("flash: sent", total_bytes, amount=size) as advance:
        yield advance


def _show(output: Output, done: Flashed) -> None:
    if done.condition.startswith("already"):
        return
    if done.condition == "planned":
        check_table(output, done.checks)
    members = ", ".join(part.name for part in done.plan.parts[:3])
    more = f" and {len(done.plan.parts) - 3} more" if len(done.plan.parts) > 3 else ""
    resumed = sum(part.offset for part in done.plan.parts)
    facts = {
        "release": f"{done.release} ({done.release_id[:12]})",
        "to": f"{done.robot}:{done.root}, slot {done.slot}",
        "ran before": done.before.running if done.before else "nothing",
        "to send" if done.condition == "planned" else "lacked": (
            f"{size(done.plan.send_bytes)}: {members}{more}" if members else "nothing"
        ),
    }
    if resumed:
        facts["kept"] = f"{size(resumed)} from an earlier try"
    if done.condition != "planned":
        facts["sent"] = size(done.sent_bytes)
    output.facts("plan" if done.condition == "planned" else "done", facts)


def _verdict(done: Flashed) -> str:
    what = f"{done.release} ({done.release_id[:12]})"
    if done.condition == "planned":
        return f"{done.robot} would get {what}; nothing was changed"
    if done.condition in ("installed", "already installed"):
        already = "already " if done.condition == "already installed" else ""
        return f"{what} {already}lies in slot {done.slot} of {done.robot}, not active"
    already = " already" if done.condition == "already active" else ""
    return f"{done.robot}{already} runs {what}"
