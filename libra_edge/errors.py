"""The errors a user can cause or meet, apart from bugs.

A `LibraError` carries a stable code, the fact and the remedy; the CLI renders it without a
traceback and exits with the error's exit status. Anything else that escapes is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit statuses of `libra-edge`. Documented, never renumbered."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARITY = 3
    INCOMPATIBLE = 4
    INTEGRITY = 5
    UNREACHABLE = 6
    NOT_MEASURED = 7
    INTERRUPTED = 130
    READER_LEFT = 141


class LibraError(Exception):
    """Something the user can put right.

    Args:
        code: stable kebab-case identifier, for example `checkpoint-missing-tensor`.
        fact: what was found, in one sentence, with names and values.
        remedy: what to do about it, in one sentence.
    """

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, code: str, fact: str, remedy: str) -> None:
        super().__init__(f"{code}: {fact} {remedy}")
        self.code = code
        self.fact = fact
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[LibraError], tuple[str, str, str]]:
        """Survive the trip back from a worker process."""
        return type(self), (self.code, self.fact, self.remedy)


class LibraWarning(UserWarning):
    """Something that was done or doubted and that the user should know; nothing stops.

    Args:
        code: stable kebab-case identifier.
        fact: what was found or done, in one sentence.
        remedy: what to do about it; empty where there is nothing to do.
    """

    def __init__(self, code: str, fact: str, remedy: str = "") -> None:
        super().__init__(code, fact, remedy)
        self.code = code
        self.fact = fact
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.code}: {self.fact} {self.remedy}".rstrip()


class InputError(LibraError):
    """What the user handed in (a flag, a file, a checkpoint, a dataset) is not usable."""

    exit_code = ExitCode.USAGE


class ParityError(LibraError):
    """A compiled stage is not the policy it was compiled from."""

    exit_code = ExitCode.PARITY


class CrashedError(LibraError):
    """A release's code took its process down, or never came back."""

    exit_code = ExitCode.PARITY


class IncompatibleError(LibraError):
    """A release does not fit the machine, target or ABI it meets."""

    exit_code = ExitCode.INCOMPATIBLE


class IntegrityError(LibraError):
    """A release is not the bytes its manifest says."""

    exit_code = ExitCode.INTEGRITY


class UntrustedError(IntegrityError):
    """A release is whole, but not one that the trust file lets in."""


class NotMeasuredError(LibraError):
    """A comparison that was asked for could not be made; it never counts as passed."""

    exit_code = ExitCode.NOT_MEASURED


class UnreachableError(LibraError):
    """A robot, or what should answer on it, does not answer."""

    exit_code = ExitCode.UNREACHABLE


class StoppedError(LibraError):
    """Ctrl-C, with the condition that it leaves behind."""

    exit_code = ExitCode.INTERRUPTED


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the nearest known one, else the list of all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."
