"""The `libra-edge` program: its commands, each imported when it is used, and its error exit."""

from __future__ import annotations

import importlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from libra_edge.errors import ExitCode, InputError, LibraError, did_you_mean
from libra_edge.version import __version__

from ._render import Output, warnings_said
from ._streams import ReaderLeft, flush, prepare


class Entry(NamedTuple):
    """One command: the function that runs it and the line `--help` shows."""

    module: str
    function: str
    summary: str


COMMANDS = {
    "compile": Entry("compile", "compile_", "Compile a checkpoint into a release."),
    "sensitivity": Entry(
        "sensitivity", "sensitivity", "Measure what quantising each layer does to a policy."
    ),
    "inspect": Entry("inspect", "inspect", "Show what a release or a checkpoint holds."),
    "estimate": Entry("estimate", "estimate", "Bound a policy's latency without building."),
    "diff": Entry("diff", "diff", "Show what changed from one release to another."),
    "verify": Entry("verify", "verify", "Check that a release is still the same policy."),
    "simulate": Entry("simulate", "simulate", "Run a policy in the simulator, success per task."),
    "merge": Entry("merge", "merge", "Put the shards of an evaluation together."),
    "collect": Entry("collect", "collect", "Record demonstrations of scripted experts."),
    "dataset": Entry("dataset", "dataset", "Check a LeRobot dataset, or describe its robot."),
    "train": Entry("train", "train", "Train a policy on demonstrations."),
    "provision": Entry("provision", "provision", "Build and check a release's engines here."),
    "sign": Entry("sign", "sign", "Sign a release, with its provenance beside it."),
    "keys": Entry("keys", "keys", "Make signing keys, and say whom a robot trusts."),
    "pack": Entry("pack", "pack", "Pack a release directory into one file."),
    "unpack": Entry("unpack", "unpack", "Unpack a release file into a directory."),
    "flash": Entry("flash", "flash", "Put a release on a robot."),
    "status": Entry("status", "status", "Show what a robot runs and what its slots hold."),
    "rollback": Entry("rollback", "rollback", "Switch a robot back to what it ran before."),
    "targets": Entry("targets", "targets", "List the machines a release can be compiled for."),
    "recipes": Entry("recipes", "recipes", "List the precision recipes."),
    "doctor": Entry("doctor", "doctor", "Check this machine or a robot."),
}


_CONTEXT = {"help_option_names": ["-h", "--help"]}


def _single_command(name: str, function: Callable[..., Any]) -> Any:
    holder = typer.Typer(add_completion=False, rich_markup_mode=None)
    holder.command(name, context_settings=_CONTEXT)(function)
    return typer.main.get_command(holder)


def load_command(name: str) -> Any:
    """Import the module of command `name` and build its parser."""
    entry = COMMANDS[name]
    module = importlib.import_module(f".{entry.module}", __package__)
    found = getattr(module, entry.function)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    return _single_command(name, found)


def _summary_only(name: str) -> Any:
    def stub() -> None:
        """Stands in for the command in `--help`."""

    stub.__doc__ = COMMANDS[name].summary
    return _single_command(name, stub)


class LazyGroup(TyperGroup):
    """A command group that imports a command when it runs, not when it is listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the work, as `--help` lists them."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command as `--help` needs it: its name and summary."""
        return _summary_only(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command as it runs; also what shell completion asks for options."""
        name = args[0]
        if name not in COMMANDS:
            raise InputError(
                "unknown-command", f"There is no command {name!r}.", did_you_mean(name, COMMANDS)
            )
        return name, load_command(name), args[1:]

    def invoke(self, ctx: Any) -> Any:
        """Run, and keep Ctrl-C apart from the other ways to leave."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _Interrupted from None

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> Any:
        """Parse and run; every error is rendered here and nowhere else."""
        words = list(sys.argv[1:] if args is None else args)
        options = words[: words.index("--")] if "--" in words else words
        command = next((word for word in words if word in COMMANDS), None)
        output = Output(command, json="--json" in options)
        extra.update(prog_name="libra-edge", standalone_mode=False)
        try:
            self._main(output, words, extra)
        except ReaderLeft:
            sys.exit(int(ExitCode.READER_LEFT))

    def _main(self, output: Output, words: Sequence[str], extra: dict[str, Any]) -> None:
        try:
            with warnings_said():
                status = super().main(words, **extra)
            flush()
        except LibraError as error:
            output.fail(error)
        except (_Interrupted, typer.Abort):
            output.interrupted()
        except typer.TyperException as error:
            output.fail(_usage_error(error, output.command))
        except ReaderLeft:
            raise
        except Exception as error:
            output.bug(error)
        sys.exit(status if isinstance(status, int) else int(ExitCode.OK))


class _Interrupted(Exception):
    """Ctrl-C on its way to `LazyGroup.main`."""


def _usage_error(error: typer.TyperException, command: str | None) -> InputError:
    fact = " ".join(error.format_message().split())
    asked = f"libra-edge {command}" if command else "libra-edge"
    return InputError("usage", fact, f"See `{asked} --help`.")


app = typer.Typer(
    name="libra-edge",
    cls=LazyGroup,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings=_CONTEXT,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"libra-edge {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show version.")
    ] = False,
) -> None:
    """Compile a trained Libra-VLA policy into a release that a robot can run.

    Results go to stdout, narration to stderr; every command takes --json.
    Exit codes: 0 ok, 1 failed, 2 usage, 3 parity, 4 incompatible, 5 integrity,
    6 unreachable, 7 not measured, 130 interrupted, 141 the reader of the output left.
    """
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")


@contextmanager
def _nothing_of_torch_left() -> Iterator[None]:
    """Take away the folder that PyTorch makes for a compiler which nothing here uses."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    if name in os.environ:
        yield
        return
    # PyTorch makes it when it needs it; nobody else knows its name.
    folder = Path(os.environ.get("TMPDIR") or "/tmp", f"libra-edge-torch-{secrets.token_hex(8)}")
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Entry point of the console script."""
    prepare()
    with _nothing_of_torch_left():
        app()
