"""Engine kinds: each module of this package holds one, but for `base`, `session` and `_…`.

They are found by listing the folder.
"""

from __future__ import annotations

import importlib
import pkgutil

from libra_edge.engines.base import Engine
from libra_edge.errors import InputError, did_you_mean

__all__ = ["Engine", "engine", "kinds"]
_SHARED = ("base", "session")


def kinds() -> tuple[str, ...]:
    """Names of all engine kinds, sorted."""
    modules = (m.name for m in pkgutil.iter_modules(__path__))
    return tuple(
        sorted(m for m in modules if m not in ("base", "session") and not m.startswith("_"))
    )


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
