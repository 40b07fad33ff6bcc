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
def progress(description: str, total: float, *, even: bool = True) -> Iterator[Callable[..., None]]:
    """Show progress on stderr.

    Args:
        description: what is going on.
        total: amount of work.
        even: pieces take about the same time, so that what is left can be told; else what went by
            is shown.

    Yields:
        `advance(amount=1, note="")`: reports work done and, optionally, what is going on.
    """
    shown = _bar if console(stderr=True).is_terminal else _lines
    with shown(description, total, even) as advance:
        yield advance


@contextmanager
def _bar(description: str, total: float, even: bool) -> Iterator[Callable[..., None]]:
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
        MofNCompleteColumn(),
        TimeRemainingColumn() if even else TimeElapsedColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total, note="", rate="")

        def advance(amount: float = 1, note: str = "") -> None:
            pace = bar.tasks[task].speed if even else None
            rate = _rate(pace) if pace else ""
            bar.update(task, advance=amount, note=fitting(note, sys.stderr), rate=rate)

        yield advance


def _rate(per_s: float) -> str:
    return f"{per_s:.3g} per s" if per_s >= 1 else f"{1 / per_s:.3g} s each"


@contextmanager
def _lines(description: str, total: float, even: bool) -> Iterator[Callable[..., None]]:
    """A line every few seconds, also while a long piece of work says nothing."""
    started = time.monotonic()
    done, said = 0.0, ""
    ended = threading.Event()

    def show() -> None:
        gone_s = time.monotonic() - started
        left_s = gone_s / done * max(total - done, 0) if done else 0.0
        pace = f"{_rate(done / gone_s)}, " if even and done and gone_s else ""
        clock = f"{pace}{left_s:.0f} s left" if even else f"{gone_s:.0f} s"
        say(f"{description}: {done:g}/{total:g}, {clock}" + (f", {said}" if said else ""))

    def keep_showing() -> None:
        # Where nothing can be said, the work goes on; the verdict will meet the same trouble.
        with suppress(ReaderLeft, LibraError):
            while not ended.wait(INTERVAL_S):
                show()

    def advance(amount: float = 1, note: str = "") -> None:
        nonlocal done, said
        done, said = done + amount, note
        if done >= total:
            show()

    thread = threading.Thread(target=keep_showing, daemon=True)
    thread.start()
    try:
        yield advance
    finally:
        ended.set()
        thread.join()
