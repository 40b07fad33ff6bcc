"""How ranges are found: each module of this package holds one algorithm, but for `base`.

They are found by listing the folder; `libra_edge.catalog.Algorithm` names them for recipes.
"""

from __future__ import annotations

import importlib
import pkgutil

from libra_edge.compiler.quantization.algorithms.base import Algorithm

__all__ = ["Algorithm", "algorithm", "algorithms"]


def algorithms() -> tuple[str, ...]:
    """Names of all algorithms, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base"))


def algorithm(name: str) -> Algorithm:
    """The algorithm of a recipe, by its name."""
    found: Algorithm = importlib.import_module(f"{__name__}.{name}").ALGORITHM
    return found
