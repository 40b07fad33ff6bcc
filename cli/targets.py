"""`libra-edge targets`."""

from __future__ import annotations

from libra_edge import catalog

from ._options import Json
from ._render import Output


def targets(json: Json = False) -> None:
    """List the machines a release can be compiled for."""
    output = Output("targets", json)
    entries = catalog.list_targets()
    output.table(
        ("target", "arch", "engines", "precisions", "summary"),
        [
            (
                name,
                target.arch,
                ", ".join(engine.kind for engine in target.engines),
                ", ".join(target.precisions),
                target.summary,
            )
            for name, target in entries.items()
        ],
    )
    output.finish(
        {"targets": [target.model_dump(mode="json") for target in entries.values()]},
        f"{len(entries)} target{'s' * (len(entries) != 1)}",
        next_command=f"libra-edge compile CHECKPOINT --target {next(iter(entries))}",
    )
