"""Optional dependencies: what to say when one is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from libra_edge.errors import InputError


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Around imports: a package that is not there becomes an error that names the extra.

    Args:
        extra: the extra of `libra-edge` that brings the package.
        what: what needs it, as the start of a sentence.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package == "libra_edge":
            raise
        raise InputError(
            "extra-missing",
            f"{what} needs the Python package {package}, which is not installed.",
            f"Install it with: pip install 'libra-edge[{extra}]'.",
        ) from error
