"""`libra-edge merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from libra_edge.errors import InputError
from libra_edge.evaluation.kept import read_results
from libra_edge.workers.ledger import merge as merged

from ._options import Json
from ._render import Output
from .simulate import report


def merge(
    shards: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="What `simulate --shard K/N --results FILE` wrote.",
            show_default=False,
        ),
    ],
    json: Json = False,
) -> None:
    """Put the shards of an evaluation together: the report that one run would have given.

    Every shard has to be there, once and finished, of one run: the same policy, tasks, episodes and
    seed.
    """
    command, settings, rows = merged(shards)
    if command != "simulate":
        raise InputError(
            "results-unknown", f"These are results of `{command}`.", "Merge those of simulate."
        )
    report(Output(command, json), settings, read_results(rows))
