"""The one place that renders: results on stdout, narration on stderr, JSON, errors, progress."""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import typer

from libra_edge.errors import ExitCode, LibraError, LibraWarning

from ._streams import fitting

SCHEMA_VERSION = 1
NARROWEST = 20  # a terminal that claims to be narrower shows nothing at all


def console(*, stderr: bool = False) -> Any:
    """Rich's console on stdout or stderr: no markup, nothing guessed from the text."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    made.width = max(made.width, NARROWEST)
    return made


def _print_json(envelope: Mapping[str, Any]) -> None:
    body = {"schema_version": SCHEMA_VERSION, **envelope}
    text = json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False)
    if fitting(text, sys.stdout) != text:  # escaped, JSON says the same in any encoding
        text = json.dumps(body, indent=2, allow_nan=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Print one line of narration on stderr."""
    console(stderr=True).print(fitting(text, sys.stderr), soft_wrap=True)


def command_line(words: tuple[object, ...]) -> str:
    """A command of this program as a shell takes it, paths quoted where they need it."""
    return " ".join(["libra-edge", *map(_quoted, words)])


def _quoted(word: object) -> str:
    text = str(word)
    if isinstance(word, Path) and text.startswith("-"):
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_spelled, text))}'"


def _spelled(character: str) -> str:
    if character.isprintable() and character not in "'\\":
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


@contextmanager
def warnings_said() -> Iterator[None]:
    """Around a command: our own warnings become narration, once each; others stay as they are."""
    plain = warnings.showwarning
    said: set[str] = set()

    def show(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
        if not isinstance(message, LibraWarning):
            plain(message, category, *rest, **more)
        elif str(message) not in said:
            said.add(str(message))
            say(f"warning[{message.code}]: {message.fact}")
            if message.remedy:
                say(f"  remedy: {message.remedy}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", LibraWarning)
        warnings.showwarning = show
        yield


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
            console().print(fitting(line, sys.stdout), soft_wrap=True)

    def warn(self, line: str) -> None:
        """Print one line of result in red."""
        if not self.json:
            console().print(fitting(line, sys.stdout), style="bold red", soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table that folds its cells to the terminal's width."""
        if self.json:
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False, header_style="bold")
        for column in columns:
            table.add_column(fitting(column, sys.stdout), overflow="fold")
        for row in rows:
            cells = (fitting(str(cell), sys.stdout) for cell in row)
            table.add_row(*(Text(cell, overflow="fold") for cell in cells))
        console().print(table)

    def facts(self, title: str, pairs: Mapping[str, object]) -> None:
        """Print a titled block of `name  value` lines."""
        if self.json:
            return
        from rich.table import Table
        from rich.text import Text

        console().print(fitting(title, sys.stdout), style="bold", soft_wrap=True)
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in pairs.items():
            shown = fitting(str(value), sys.stdout)
            grid.add_row(Text(f"  {name}"), Text(shown, overflow="fold"))
        console().print(grid)

    def finish(
        self,
        result: Mapping[str, Any],
        verdict: str,
        *,
        exit_code: ExitCode = ExitCode.OK,
        next_command: tuple[object, ...] | None = None,
    ) -> None:
        """Print the verdict as the last line (or the JSON object) and leave with `exit_code`.

        Args:
            result: what `--json` shows.
            verdict: the last line.
            exit_code: the exit status.
            next_command: words of the command that comes next, without the program's name.
        """
        ok = exit_code is ExitCode.OK
        if self.json:
            _print_json({"command": self.command, "ok": ok, "result": dict(result)})
        else:
            if next_command:
                say(f"next: {command_line(next_command)}")
            self._verdict("ok" if ok else "FAILED", verdict, "green" if ok else "red")
        if not ok:
            raise typer.Exit(int(exit_code))

    @staticmethod
    def _verdict(word: str, text: str, color: str) -> None:
        from rich.text import Text

        line = Text.assemble((word, f"bold {color}"), f": {fitting(text, sys.stdout)}")
        console().print(line, soft_wrap=True)

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

        for (word, style), text in (
            ((f"error[{code}]", "bold red"), fact),
            (("  remedy", "bold"), remedy),
        ):
            line = Text.assemble((word, style), f": {fitting(text, sys.stderr)}")
            console(stderr=True).print(line, soft_wrap=True)
        if self.json:
            error = {"code": code, "fact": fact, "remedy": remedy, "exit_code": int(exit_code)}
            _print_json({"command": self.command, "ok": False, "error": error})
        sys.exit(int(exit_code))
