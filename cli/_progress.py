"""Progress on stderr: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from libra_edge.errors import LibraError

from ._render import console, say
from ._streams import ReaderLeft, fitting

INTERVAL_S = 10.0


@contextmanager
def progress(
    description: str,
    total: float,
    *,
    even: bool = True,
    amount: Callable[[float], str] | None = None,
) -> Iterator[Callable[..., None]]:
    """Show progress on stderr.

    Args:
        description: what is going on.
        total: amount of work.
        even: pieces take about the same time, so that what is left can be told; else what went by
            is shown.
        amount: how an amount of work reads, where it is no plain count; its rate is per second.

    Yields:
        `advance(amount=1, note="")`: reports work done and, optionally, what is going on.
    """
    shown = _bar if console(stderr=True).is_terminal else _lines
    with shown(description, total, even, amount) as advance:
        yield advance


@contextmanager
def _bar(
    description: str, total: float, even: bool, amount: Callable[[float], str] | None
) -> Iterator[Callable[..., None]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[done]}") if amount else MofNCompleteColumn(),
        TimeRemainingColumn() if even else TimeElapsedColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total, note="", rate="", done="")

        def advance(more: float = 1, note: str = "") -> None:
            pace = bar.tasks[task].speed if even else None
            rate = _rate(pace, amount) if pace else ""
            words = _done(bar.tasks[task].completed + more, total, amount)
            said = fitting(note, sys.stderr)
            bar.update(task, advance=more, note=said, rate=rate, done=words)

        yield advance


def _done(done: float, total: float, amount: Callable[[float], str] | None) -> str:
    return f"{amount(done)} of {amount(total)}" if amount else f"{done:g}/{total:g}"


def _rate(per_s: float, amount: Callable[[float], str] | None) -> str:
    if amount:
        return f"{amount(per_s)}/s"
    return f"{per_s:.3g} per s" if per_s >= 1 else f"{1 / per_s:.3g} s each"


@contextmanager
def _lines(
    description: str, total: float, even: bool, amount: Callable[[float], str] | None
) -> Iterator[Callable[..., None]]:
    """A line every few seconds, also while a long piece of work says nothing."""
    started = time.monotonic()
    done, said = 0.0, ""
    ended = threading.Event()

    def show() -> None:
        gone_s = time.monotonic() - started
        left_s = gone_s / done * max(total - done, 0) if done else 0.0
        pace = f"{_rate(done / gone_s, amount)}, " if even and done and gone_s else ""
        clock = f"{pace}{left_s:.0f} s left" if even else f"{gone_s:.0f} s"
        say(f"{description}: {_done(done, total, amount)}, {clock}" + (f", {said}" if said else ""))

    def keep_showing() -> None:
        # Where nothing can be said, the work goes on; the verdict will meet the same trouble.
        with suppress(ReaderLeft, LibraError):
            while not ended.wait(INTERVAL_S):
                show()

    def advance(more: float = 1, note: str = "") -> None:
        nonlocal done, said
        done, said = done + more, note
        if done >= total:
            show()

    thread = threading.Thread(target=keep_showing, daemon=True)
    thread.start()
    try:
        yield advance
    finally:
        ended.set()
        thread.join()
