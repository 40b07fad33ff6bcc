"""Standard streams as a user's shell hands them over: closed, full, or not able to say é."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any, TextIO

from libra_edge.errors import LibraError

_ERRORS = "libra-edge"
_PLAIN = {
    "–": "-",
    "—": "-",
    "─": "-",
    "×": "x",
    "…": "...",
    "≥": ">=",
    "≤": "<=",
    "±": "+-",
    "·": ".",
    "°": " deg",
    "µ": "u",
    "→": "->",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
}
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
del _CONTROLS[ord("\n")]


class ReaderLeft(Exception):
    """Whoever read the output has closed it, as `head` does."""


class _Standard(io.FileIO):
    """A standard stream whose troubles are told apart from those of other files.

    They are told once: what comes after is dropped, else Python would try it again as it ends.
    """

    _broken = False

    def write(self, data: Any) -> int | None:  # type: ignore[override]  # None: it would block
        """See `io.FileIO`."""
        if self._broken:
            return len(data)
        try:
            return super().write(data)
        except BrokenPipeError:
            self._broken = True
            raise ReaderLeft from None
        except OSError as error:
            self._broken = True
            raise LibraError(
                "output-not-written",
                f"What was to be printed cannot be written: {os.strerror(error.errno or 0)}.",
                "Send the output to a place with free space and run the command again.",
            ) from None


def prepare() -> None:
    """Put streams into `sys` that hold anything; once, at the start of the program."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file that is opened would be taken for the standard stream.
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = _wrapped(1, sys.stdout), _wrapped(2, sys.stderr)


def _wrapped(descriptor: int, old: TextIO | None) -> TextIO:
    encoding = old.encoding if old is not None else "utf-8"
    raw = _Standard(descriptor, "w", closefd=False)
    by_line = descriptor == 2 or raw.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors=_ERRORS, line_buffering=by_line
    )


def flush() -> None:
    """Bring everything out, while an error can still be told.

    Raises:
        ReaderLeft: nobody reads it.
        LibraError: it cannot be written.
    """
    sys.stdout.flush()
    sys.stderr.flush()


def fitting(text: str, stream: TextIO) -> str:
    """The text as the stream can show it, before it is laid out in columns.

    Control characters are spelled: a name in a file must not steer the terminal.
    """
    encoding = stream.encoding or "utf-8"
    return text.translate(_CONTROLS).encode(encoding, _ERRORS).decode(encoding)


def _in_plain_words(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that an encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode()


codecs.register_error(_ERRORS, _in_plain_words)
