"""`libra-edge pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from libra_edge.bundle.container import SUFFIX
from libra_edge.bundle.pack import pack_release

from ._options import Force, Json, OutputPath
from ._render import Output


def pack(
    release: Annotated[Path, typer.Argument(help="Release directory.", show_default=False)],
    output: OutputPath = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Pack a release directory into one file, RELEASE.libra unless --out says otherwise.

    The release is verified before, the file after. The same release gives the same bytes.
    """
    out = Output("pack", json)
    folder = release.resolve()
    destination = output or release.parent / f"{folder.name}{SUFFIX}"
    manifest = pack_release(release, destination, replace=force)
    size_bytes = destination.stat().st_size
    out.finish(
        {
            "path": str(destination),
            "size_bytes": size_bytes,
            "release_id": manifest.release_id,
        },
        f"{destination}, {size_bytes} bytes, verified",
        next_command=("inspect", destination),
    )
