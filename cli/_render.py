"""The one place that renders: results on stdout, narration on stderr, JSON, errors, progress."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import typer

from libra_edge.errors import ExitCode, LibraError

SCHEMA_VERSION = 1
PLAIN_INTERVAL_S = 10.0


def _console(*, stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def _print_json(envelope: Mapping[str, Any]) -> None:
    body = {"schema_version": SCHEMA_VERSION, **envelope}
    sys.stdout.write(json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Print one line of narration on stderr."""
    _console(stderr=True).print(text, soft_wrap=True)


@dataclass(frozen=True)
class Output:
    """What one command prints. With `json`, human text is dropped and `finish` prints one object.

    Args:
        command: the command's name for the JSON envelope; None if none could be made out.
        json: whether stdout gets JSON in place of text.
    """

    command: str | None
    json: bool = False

    def text(self, line: str) -> None:
        """Print one line of result."""
        if not self.json:
            _console().print(line, soft_wrap=True)

    def warn(self, line: str) -> None:
        """Print one line of result in red."""
        if not self.json:
            _console().print(line, style="bold red", soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table that folds its cells to the terminal's width."""
        if self.json:
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(str(cell), overflow="fold") for cell in row))
        _console().print(table)

    def facts(self, title: str, pairs: Mapping[str, object]) -> None:
        """Print a titled block of `name  value` lines."""
        if self.json:
            return
        from rich.table import Table
        from rich.text import Text

        console = _console()
        console.print(title, style="bold", soft_wrap=True)
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in pairs.items():
            grid.add_row(Text(f"  {name}"), Text(str(value), overflow="fold"))
        console.print(grid)

    def finish(
        self,
        result: Mapping[str, Any],
        verdict: str,
        *,
        exit_code: ExitCode = ExitCode.OK,
        next_command: str | None = None,
    ) -> None:
        """Print the verdict as the last line (or the JSON object) and leave with `exit_code`."""
        ok = exit_code is ExitCode.OK
        if self.json:
            _print_json({"command": self.command, "ok": ok, "result": dict(result)})
        else:
            if next_command:
                say(f"next: {next_command}")
            self._verdict("ok" if ok else "FAILED", verdict, "green" if ok else "red")
        if not ok:
            raise typer.Exit(int(exit_code))

    @staticmethod
    def _verdict(word: str, text: str, color: str) -> None:
        from rich.text import Text

        line = Text.assemble((word, f"bold {color}"), f": {text}")
        _console().print(line, soft_wrap=True)

    def fail(self, error: LibraError) -> NoReturn:
        """Render a user's error and leave with its exit status."""
        self._leave(error.code, error.fact, error.remedy, error.exit_code)

    def interrupted(self) -> NoReturn:
        """Render Ctrl-C with the condition it leaves behind."""
        self._leave(
            "interrupted",
            "Stopped by Ctrl-C before the end.",
            "Outputs are renamed into place only when whole: what stood there before still "
            "stands. Run the same command again.",
            ExitCode.INTERRUPTED,
        )

    def bug(self, error: BaseException) -> NoReturn:
        """Render an unexpected exception: the traceback, and that it is our fault."""
        traceback.print_exception(error, file=sys.stderr)
        self._leave(
            "internal-error",
            f"{type(error).__name__}: {error}",
            "This is a bug in libra-edge: report it with the traceback and the command.",
            ExitCode.FAILED,
        )

    def _leave(self, code: str, fact: str, remedy: str, exit_code: ExitCode) -> NoReturn:
        from rich.text import Text

        console = _console(stderr=True)
        console.print(Text.assemble((f"error[{code}]", "bold red"), f": {fact}"), soft_wrap=True)
        console.print(Text.assemble(("  remedy", "bold"), f": {remedy}"), soft_wrap=True)
        if self.json:
            error = {"code": code, "fact": fact, "remedy": remedy, "exit_code": int(exit_code)}
            _print_json({"command": self.command, "ok": False, "error": error})
        sys.exit(int(exit_code))


@contextmanager
def progress(description: str, total: float) -> Iterator[Callable[..., None]]:
    """Show progress on stderr: a bar with rate and ETA on a terminal, else a line now and then.

    Yields:
        `advance(amount=1, note="")`: reports work done and, optionally, what is going on.
    """
    if _console(stderr=True).is_terminal:
        with _bar(description, total) as advance:
            yield advance
    else:
        yield _plain_lines(description, total)


@contextmanager
def _bar(description: str, total: float) -> Iterator[Callable[..., None]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total, note="")

        def advance(amount: float = 1, note: str = "") -> None:
            bar.update(task, advance=amount, note=note)

        yield advance


def _plain_lines(description: str, total: float) -> Callable[..., None]:
    done = 0.0
    started = last = time.monotonic()

    def advance(amount: float = 1, note: str = "") -> None:
        nonlocal done, last
        done += amount
        now = time.monotonic()
        if now - last < PLAIN_INTERVAL_S and done < total:
            return
        last = now
        eta_s = (now - started) / done * max(total - done, 0) if done else 0.0
        tail = f", {note}" if note else ""
        say(f"{description}: {done:g}/{total:g}, {eta_s:.0f} s left{tail}")

    return advance
