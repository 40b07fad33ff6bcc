"""Engine kinds: each module of this package but `base` holds one, found by listing the folder."""

from __future__ import annotations

import importlib
import pkgutil

from libra_edge.engines.base import Engine
from libra_edge.errors import InputError, did_you_mean

__all__ = ["Engine", "engine", "kinds"]


def kinds() -> tuple[str, ...]:
    """Names of all engine kinds, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base"))


def engine(kind: str) -> Engine:
    """The engine of one kind.

    Raises:
        InputError: there is no such kind.
    """
    if kind not in kinds():
        raise InputError(
            "unknown-engine", f"There is no engine kind {kind!r}.", did_you_mean(kind, kinds())
        )
    module = importlib.import_module(f"{__name__}.{kind}")
    found: Engine = module.ENGINE
    return found
