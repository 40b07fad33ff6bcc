"""Where this user's caches lie, and what to say where nothing can be kept there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from libra_edge.errors import InputError

VARIABLE = "XDG_CACHE_HOME"


def cache_folder(room: str) -> Path:
    """`$XDG_CACHE_HOME/libra-edge/ROOM`, or the same under `~/.cache`; it need not exist.

    Raises:
        InputError: neither the variable nor a home is set.
    """
    if base := os.environ.get(VARIABLE):
        return Path(base) / "libra-edge" / room
    try:
        return Path.home() / ".cache" / "libra-edge" / room
    except RuntimeError:
        raise InputError(
            "cache-not-writable",
            f"This user has no home folder, and {VARIABLE} is not set.",
            f"Set {VARIABLE} to a folder that you may write to.",
        ) from None


def make_writable(folder: Path, option: str = "") -> Path:
    """Make a cache folder, and make sure that it can be written to before any work is done.

    Args:
        folder: the cache.
        option: the command's option that names another, if it has one.

    Raises:
        InputError: it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        why = "" if os.access(folder, os.W_OK | os.X_OK) else "it may not be written to"
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
    if why:
        also = f", or name one with {option}" if option else ""
        raise InputError(
            "cache-not-writable",
            f"Nothing can be kept in the cache {folder}: {why}.",
            f"Set {VARIABLE} to a folder that you may write to{also}.",
        )
    return folder


def require_writable(folder: Path, option: str = "") -> None:
    """Make sure that a cache folder could be made and written to; leave nothing behind.

    Raises:
        InputError: as `make_writable`.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    make_writable(folder, option)
    with suppress(OSError):  # somebody else keeps something there by now
        for path in missing:
            path.rmdir()
