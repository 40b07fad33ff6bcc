"""Many releases at once: the pairs of targets and recipes that make sense, in parallel processes.

Each pair is a `libra-edge compile` of its own, so that one that fails or runs out of memory takes
no other down. As many run as fit the processors and the memory budget.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from libra_edge.catalog import Recipe, Target
from libra_edge.errors import InputError

# PyTorch, ONNX and a compiler, loaded; and copies of the weights in 32 bits that a compile holds.
BASE_BYTES = 3 * 2**29
COPIES = 8
POLL_S = 0.1


@dataclass(frozen=True)
class Pair:
    """One release to make; `why_not` where it makes no sense."""

    target: Target
    recipe: Recipe
    why_not: str = ""

    @property
    def name(self) -> str:
        """For tables and folders."""
        return f"{self.target.name}-{self.recipe.name}"


@dataclass(frozen=True)
class Outcome:
    """What became of a pair: `ok`, `failed` or `skipped`; result: of its `--json`, if it is ok."""

    pair: Pair
    status: str
    seconds: float
    result: dict[str, Any]
    why: str = ""


def pairs(targets: Sequence[Target], recipes: Sequence[Recipe]) -> list[Pair]:
    """Every pair once, those that make no sense with the reason.

    Raises:
        InputError: none of them makes sense.
    """

    def why_not(target: Target, recipe: Recipe) -> str:
        missing = recipe.needs - set(target.precisions)
        return f"{target.name} has no {', '.join(sorted(missing))}" if missing else ""

    found = [Pair(t, r, why_not(t, r)) for t in targets for r in recipes]
    if all(pair.why_not for pair in found):
        raise InputError(
            "matrix-empty",
            f"None of the {len(found)} pairs makes sense: {found[0].why_not}.",
            "`libra-edge recipes` lists the targets of each recipe.",
        )
    return found


def job_bytes(parameters: int) -> int:
    """Memory that compiling a policy takes at the most, by its parameters."""
    return BASE_BYTES + COPIES * 4 * parameters


class Job(Protocol):
    """The command of a pair, at work somewhere."""

    def ended(self) -> bool:
        """Whether it has."""
        ...

    def output(self) -> tuple[int, bytes]:
        """Its status, and what it said, once it ended."""
        ...

    def kill(self) -> None:
        """End it."""
        ...


class Process:
    """A command on this machine."""

    def __init__(self, command: Sequence[str]) -> None:
        # A file, not a pipe: nobody reads while it runs, and a full pipe would stop it.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115, closed with what it said
        self._process = subprocess.Popen(command, stdout=self._output, stderr=subprocess.DEVNULL)

    def ended(self) -> bool:
        """See `Job.ended`."""
        return self._process.poll() is not None

    def output(self) -> tuple[int, bytes]:
        """See `Job.output`."""
        with self._output as output:
            output.seek(0)
            return self._process.returncode, output.read()

    def kill(self) -> None:
        """See `Job.kill`."""
        self._process.kill()
        self._process.wait()


@dataclass
class _Running:
    pair: Pair
    job: Job
    begin: float


def run(
    wanted: Sequence[Pair],
    command: Callable[[Pair], Sequence[str]],
    *,
    jobs: int,
    budget_bytes: int,
    each_bytes: int,
    start: Callable[[Sequence[str]], Job] = Process,
    on_change: Callable[[int, str], None] = lambda done, running: None,
) -> list[Outcome]:
    """Run a command per pair, in parallel; one at a time at the least.

    Args:
        wanted: what to make; pairs with `why_not` are passed over.
        command: the process of a pair; prints a `--json` envelope on stdout.
        jobs: processes at the same time at the most.
        budget_bytes: memory for all of them.
        each_bytes: memory of one.
        start: where a command is run; None of it but the command is sent there.
        on_change: called with how many ended since the last call, and the names of those running.
    """
    limit = max(1, min(jobs, budget_bytes // each_bytes))
    outcomes = {p.name: Outcome(p, "skipped", 0.0, {}, p.why_not) for p in wanted if p.why_not}
    waiting = [pair for pair in wanted if not pair.why_not]
    running: list[_Running] = []
    on_change(len(outcomes), "")
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                pair = waiting.pop(0)
                running.append(_Running(pair, start(command(pair)), time.monotonic()))
            ended = [one for one in running if one.job.ended()]
            for one in ended:
                running.remove(one)
                outcomes[one.pair.name] = _outcome(one)
            on_change(len(ended), ", ".join(one.pair.name for one in running))
            time.sleep(POLL_S if running else 0)
    finally:
        for one in running:
            one.job.kill()
    return [outcomes[pair.name] for pair in wanted]


def _outcome(one: _Running) -> Outcome:
    seconds = time.monotonic() - one.begin
    status, text = one.job.output()
    try:
        body = json.loads(text)
        if body["ok"]:
            return Outcome(one.pair, "ok", seconds, body["result"])
        why = f"{body['error']['code']}: {body['error']['fact']}"
    except (ValueError, KeyError, TypeError):
        why = f"ended with status {status} and said nothing"
    return Outcome(one.pair, "failed", seconds, {}, why)


def out_folder(parent: Path | None, name: str, pair: Pair) -> Path:
    """Where a pair's release goes."""
    return (parent or Path()) / f"{name}-{pair.name}"
