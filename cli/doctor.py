"""`libra-edge doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from libra_edge.deploy.doctor import examine
from libra_edge.errors import ExitCode

from ._options import Json
from ._render import Output


def doctor(
    extra: Annotated[
        list[str] | None,
        typer.Option("--extra", help="Fail unless this extra is complete; may be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Check this machine: what was found, what is needed, how to fix it.

    Without --extra only what the field needs can fail; the rest is shown.
    """
    output = Output("doctor", json)
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
