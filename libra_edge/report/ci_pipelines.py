"""Example pipelines for CI systems: compile and verify on a CPU runner."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from libra_edge.atomic import new_file
from libra_edge.errors import InputError

PIPELINES = {
    "github.yml": Path(".github/workflows/libra-edge.yml"),
    "gitlab.yml": Path(".gitlab-ci.yml"),
}


def write_pipelines(folder: Path) -> list[Path]:
    """Write every example below `folder`, or none.

    Raises:
        InputError: one of them stands there already.
    """
    written = [folder / place for place in PIPELINES.values()]
    for path in written:
        if path.exists():
            raise InputError(
                "ci-exists", f"{path} exists.", "Move it away, or add the steps to it by hand."
            )
    templates = files("libra_edge.report") / "templates/ci"
    for name, path in zip(PIPELINES, written, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as stream:
            stream.write((templates / name).read_bytes())
    return written
