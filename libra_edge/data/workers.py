"""Sharing work out among processes, with results in order and errors kept whole."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeVar

State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ordered(
    open_state: Callable[[], AbstractContextManager[State]],
    work: Callable[[State, Item], Result],
    items: Iterable[Item],
    jobs: int,
) -> Iterator[Result]:
    """`work(state, item)` for every item, in the order of `items`.

    Args:
        open_state: makes what every worker keeps (a simulator, a policy); once per process.
        work: must depend on its arguments alone, so that `jobs` changes nothing but the time.
        items: what to work on.
        jobs: processes; 1 works in this one. With more, everything must be picklable.

    Yields:
        One result per item.
    """
    if jobs <= 1:
        with open_state() as state:
            for item in items:
                yield work(state, item)
        return
    # A forked child would inherit the parent's OpenGL and OpenMP state, which neither survives.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _prepare, (open_state,)) as pool:
        yield from _bounded(pool, work, items, ahead=2 * jobs)


def _bounded(
    pool: ProcessPoolExecutor,
    work: Callable[[State, Item], Result],
    items: Iterable[Item],
    ahead: int,
) -> Iterator[Result]:
    """Keep at most `ahead` results waiting, so that a slow consumer does not fill the memory."""
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(_run, work, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


_open_state: Callable[[], AbstractContextManager[Any]] | None = None
_state: Any = None
# Holds on to the context manager: dropped, it would close what the worker still uses.
_kept = ExitStack()


def _prepare(open_state: Callable[[], AbstractContextManager[Any]]) -> None:
    global _open_state
    _open_state = open_state


def _run(work: Callable[[Any, Item], Result], item: Item) -> Result:
    # Opened here rather than in the initialiser, whose errors a pool reports as "broken".
    global _state
    if _state is None:
        assert _open_state is not None
        _state = _kept.enter_context(_open_state())
    return work(_state, item)
