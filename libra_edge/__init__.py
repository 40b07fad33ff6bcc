"""Libra Edge: compile a trained Libra-VLA policy into a release that a robot can run.

The public names are those of `__all__`, and docs/reference/python.md describes them; every other
name of this package may change without notice. They are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from libra_edge.version import __version__

if TYPE_CHECKING:
    from libra_edge.api import compile_checkpoint, open_release, verify_release
    from libra_edge.binding.policy import Policy

__all__ = ["Policy", "__version__", "compile_checkpoint", "open_release", "verify_release"]
_WHERE = {
    "Policy": "libra_edge.binding.policy",
    "compile_checkpoint": "libra_edge.api",
    "open_release": "libra_edge.api",
    "verify_release": "libra_edge.api",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
