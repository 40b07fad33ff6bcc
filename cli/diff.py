"""`libra-edge diff`."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from libra_edge.bundle.diff import diff_releases, read_build_report
from libra_edge.bundle.verify import verify_integrity

from ._options import Json
from ._render import Output

_LONG = 12
Release = Annotated[Path, typer.Argument(help="Release directory or .libra file.")]


def diff(
    before: Release,
    after: Release,
    all_: Annotated[bool, typer.Option("--all", help="Every line of long sections too.")] = False,
    json: Json = False,
) -> None:
    """Show what changed from one release to another.

    Graphs, precision, gates and sizes come from the manifests; speeds and measured parity from the
    build reports beside the releases (NAME.build.json), where they are. A block of layers shows
    what most of it runs in, and the other layers by name.
    """
    output = Output("diff", json)
    old, new = verify_integrity(before), verify_integrity(after)
    old_report, new_report = read_build_report(before, old), read_build_report(after, new)
    changes = diff_releases(old, new, old_report, new_report)
    for section, group in groupby(changes, lambda change: change.section):
        rows = [(c.subject, c.before, c.after, c.note) for c in group]
        shown = rows if all_ else rows[:_LONG]
        output.table((section, "before", "after", ""), shown)
        if len(shown) < len(rows):
            output.text(f"and {len(rows) - len(shown)} more: --all")
        output.text("")
    for path, report in ((before, old_report), (after, new_report)):
        if report is None:
            output.text(f"no build report beside {path}: its speed and parity are not shown")
    output.finish(
        {
            "before": old.release_id,
            "after": new.release_id,
            "changes": [asdict(change) for change in changes],
        },
        f"{len(changes)} facts differ" if changes else "the releases say the same",
    )
