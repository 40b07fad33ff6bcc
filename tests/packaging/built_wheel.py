"""The wheel of what git knows, built as pip builds it, away from the source tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NOT_PACKAGED = ("benchmarks/", "docs/", "examples/", "tests/")


def copy_sources(folder: Path) -> Path:
    """The files that git knows, in a folder where build/ does no harm."""
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(_NOT_PACKAGED):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    return source


def build_wheel(folder: Path, *options: str) -> Path:
    """Build it into a folder of its own.

    Args:
        folder: made by the caller, empty.
        options: more for `pip wheel`.
    """
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", *options]
    subprocess.run([*pip, "-w", str(folder), str(copy_sources(folder))], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel
