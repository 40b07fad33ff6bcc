"""`libra-edge provision`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from libra_edge.deploy import provision as deploy

from ._options import Json
from ._parity import parity_table
from ._render import Output, say


def provision(
    release: Annotated[
        Path, typer.Argument(help="Release (directory or .libra).", metavar="RELEASE")
    ],
    provider: Annotated[
        str | None,
        typer.Option(help="Execution provider.", show_default="what the release is meant for"),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of engines.", show_default="the user's cache")
    ] = None,
    json: Json = False,
) -> None:
    """Make a release usable on this machine: build its engines, replay its golden vectors.

    Run on the robot. What was built before for the same graphs, provider, device and driver is
    taken as it is; nothing is usable before its golden vectors came out right here.
    """
    output = Output("provision", json)
    done = deploy.provision(
        release,
        provider=provider,
        cache=cache,
        on_stage=lambda stage: say(f"provision: {stage}"),
    )
    if done.checks:
        parity_table(output, done.checks)
    what = "built and checked here" if done.built else "nothing to do, it was usable already"
    output.finish(
        deploy.to_json(done),
        f"{release} is usable on {done.provider}: {what} ({done.fingerprint[:12]})",
        next_command=("verify", release, "--golden-only"),
    )
