"""Places where units of work run, one interface; processes of this machine."""

from __future__ import annotations

import multiprocessing
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

OpenState = Callable[[], AbstractContextManager[Any]]
Work = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Lost:
    """In the place of a result: the worker ended before it had one."""

    why: str


class Place(ABC):
    """Runs units; a context manager, whose end cancels what still runs.

    count: workers.
    """

    count: int

    @abstractmethod
    def submit(self, number: int, work: Work, item: Any) -> None:
        """Have a worker run a unit, as soon as one is free."""

    @abstractmethod
    def wait(self) -> tuple[int, Any]:
        """The next unit that ended, and its result, or `Lost`.

        Raises:
            Exception: what the unit raised.
        """

    @abstractmethod
    def close(self) -> None:
        """Cancel what still runs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Processes(Place):
    """Processes of this machine.

    Args:
        open_state: makes what every one of them keeps.
        count: how many.
    """

    def __init__(self, open_state: OpenState, count: int) -> None:
        self.count = count
        self._open_state = open_state
        self._pool: ProcessPoolExecutor | None = None
        # Each with the pool that it is in.
        self._futures: dict[Future[Any], tuple[int, ProcessPoolExecutor | None]] = {}

    def submit(self, number: int, work: Work, item: Any) -> None:
        """See `Place.submit`."""
        if self._pool is None:
            # A forked child would inherit the parent's OpenGL and OpenMP state, which neither
            # survives.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, context, _prepare, (self._open_state,))
        try:
            self._futures[self._pool.submit(_run, work, item)] = (number, self._pool)
        except BrokenProcessPool:
            # It broke since: the unit waits for its place among the lost ones.
            lost: Future[Any] = Future()
            lost.set_exception(BrokenProcessPool())
            self._futures[lost] = (number, self._pool)

    def wait(self) -> tuple[int, Any]:
        """See `Place.wait`."""
        done, _ = wait(self._futures, return_when=FIRST_COMPLETED)
        future = min(done, key=lambda one: self._futures[one][0])
        number, pool = self._futures.pop(future)
        try:
            return number, future.result()
        except BrokenProcessPool:
            # One process that ends takes the whole pool with it, and every unit in it.
            if pool is not None and pool is self._pool:
                pool.shutdown(wait=False, cancel_futures=False)
                self._pool = None
            return number, Lost("a worker process was killed, or ended by itself")

    def close(self) -> None:
        """See `Place.close`."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


_open_state: OpenState | None = None
_state: Any = None
# Holds on to the context manager: dropped, it would close what the worker still uses.
_kept = ExitStack()


def _prepare(open_state: OpenState) -> None:
    global _open_state
    _open_state = open_state


def _run(work: Work, item: Any) -> Any:
    # Opened here rather than in the initialiser, whose errors a pool reports as "broken".
    global _state
    if _state is None:
        assert _open_state is not None
        _state = _kept.enter_context(_open_state())
    return work(_state, item)
