"""`libra-edge unpack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from libra_edge.bundle.pack import unpack_release

from ._options import Force, Json, OutputPath
from ._render import Output


def unpack(
    file: Annotated[Path, typer.Argument(help="Release file, NAME.libra.", show_default=False)],
    output: OutputPath = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Unpack a release file into a directory, NAME unless --out says otherwise.

    Every byte is checked before the directory appears.
    """
    out = Output("unpack", json)
    destination = output or file.with_suffix("")
    manifest = unpack_release(file, destination, replace=force)
    out.finish(
        {
            "path": str(destination),
            "members": len(manifest.members),
            "release_id": manifest.release_id,
        },
        f"{destination}, {len(manifest.members)} members, verified",
        next_command=("inspect", destination),
    )
