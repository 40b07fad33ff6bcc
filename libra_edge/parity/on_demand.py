"""Engines that are in memory only while they are asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libra_edge.policy.executor import Engines


class OnDemand:
    """`Engines` that are loaded when they are first asked, and again after `unload`.

    Args:
        load: gives them.
    """

    def __init__(self, load: Callable[[], Engines]) -> None:
        self._load = load
        self._engines: Engines | None = None

    def plan(self, *arguments: Any) -> Any:
        """See `libra_edge.policy.executor.Engines.plan`."""
        return self._loaded().plan(*arguments)

    def refine(self, *arguments: Any) -> Any:
        """See `libra_edge.policy.executor.Engines.refine`."""
        return self._loaded().refine(*arguments)

    def unload(self) -> None:
        """Let go of them."""
        self._engines = None

    def _loaded(self) -> Engines:
        if self._engines is None:
            self._engines = self._load()
        return self._engines
