"""Write a file or a directory so that it is there whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from libra_edge.errors import InputError, LibraError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.EPERM,
    errno.EROFS,
}


@contextmanager
def new_file(destination: Path, *, beside: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file that replaces `destination` when the block ends without an error.

    Args:
        destination: the file.
        beside: where it lies until then: beside this, on the same file system; None takes
            `destination`. For folders that may hold nothing else, not even for a moment.

    Raises:
        LibraError: the disk is full; nothing is left behind.
        InputError: the place may not be written to.
    """
    partial = _partial(beside or destination)
    try:
        with writing(destination):
            with partial.open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(destination)
            _sync(destination.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def new_directory(destination: Path) -> Iterator[Path]:
    """Yield an empty directory that becomes `destination` when the block ends without an error.

    What stood at `destination` is exchanged with it in one step, and then removed.

    Raises:
        LibraError: the disk is full; nothing is left behind.
        InputError: the place may not be written to.
    """
    partial = _partial(destination)
    try:
        with writing(destination):
            partial.mkdir()
            yield partial
            for folder, _, names in os.walk(partial):
                for name in names:
                    _sync(Path(folder, name))
                _sync(Path(folder))
            _swap_in(partial, destination)
            _sync(destination.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _swap_in(partial: Path, destination: Path) -> None:
    """Rename into place; what stood there is exchanged in one step, then removed."""
    if not destination.exists():
        partial.rename(destination)
        return
    _exchange(partial, destination)
    _sync(destination.parent)
    shutil.rmtree(partial)


def _exchange(first: Path, second: Path) -> None:
    # Two renames would leave a moment in which a power cut finds nothing at the destination.
    swap = ctypes.CDLL(None, use_errno=True).renameat2
    if swap(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        raise InputError(
            "cannot-replace",
            f"The file system of {second} cannot replace a directory in one step.",
            "Write to a new name, or remove the old release first.",
        )
    raise OSError(code, os.strerror(code), str(second))


def _partial(destination: Path) -> Path:
    """A name beside `destination`, so that the rename stays on one file system."""
    with writing(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
    return destination.parent / f".{destination.name}.partial-{secrets.token_hex(4)}"


@contextmanager
def writing(destination: Path) -> Iterator[None]:
    """Around writes: what the system refuses becomes an error that the user can put right.

    Other libraries wrap or reword the system's error; a full disk is recognised all the same.

    Raises:
        LibraError: the disk is full.
        InputError: the place may not be written to.
    """
    try:
        yield
    except LibraError:
        raise
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else _hidden_code(error)
        if code in _FULL:
            raise LibraError(
                "disk-full",
                f"No space left to write {destination} ({os.strerror(code)}).",
                "Free some space and run the command again; nothing was left half-written.",
            ) from None
        if isinstance(error, OSError) and code in _REFUSED:
            raise InputError(
                "cannot-write",
                f"{destination} cannot be written: {os.strerror(code)}.",
                "Choose a place you may write to.",
            ) from None
        raise


def _hidden_code(error: BaseException | None) -> int:
    """The system's error behind another one, or 0: PyTorch forgets it, safetensors spells it."""
    while error is not None:
        if isinstance(error, OSError):
            return error.errno or 0
        if spelled := re.search(r"\(os error (\d+)\)", str(error)):
            return int(spelled[1])
        error = error.__context__
    return 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
