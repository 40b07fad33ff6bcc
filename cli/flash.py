"""`libra-edge flash`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from libra_edge.deploy.flash import Flashed, FlashRequest
from libra_edge.deploy.flash import flash as deploy
from libra_edge.deploy.preflight import size
from libra_edge.deploy.stick import Carried, carry

from ._options import Json
from ._progress import progress
from ._render import Output, say
from ._robots import RobotName, Root, SshConfig, check_table, health, open_line


def flash(
    release: Annotated[
        Path, typer.Argument(help="Release (directory or .libra).", metavar="RELEASE")
    ],
    robot: RobotName,
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
    next_command = ("status", robot, *(("--root", root) if root else ()))
    output.finish(done.to_json(), _verdict(done), next_command=next_command)


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
    if done.condition == "already active":
        return
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
    if done.condition == "installed":
        return f"{what} lies in slot {done.slot} of {done.robot}, not active"
    already = " already" if done.condition == "already active" else ""
    return f"{done.robot}{already} runs {what}"
