"""Results of a run, a JSON line each, so that it goes on where it stopped and shards can be merged.

The first line says which run it is: the command, what decides its results, how many units it has,
and which share of them is here. A last line that an interruption cut is dropped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from libra_edge.errors import InputError, IntegrityError
from libra_edge.version import __version__
from libra_edge.workers.where import WHOLE, Shard

SCHEMA_VERSION = 1
_KEYS = {"libra_edge_results", "command", "settings", "run", "units", "shard"}


class Ledger:
    """The results that are there, and where the next ones go.

    Args:
        path: the file; None keeps nothing.
        command: whose results they are.
        settings: what a report says of the run.
        decides: what decides the results, beyond the settings: the units, the policy's identity.
        units: how many there are in all shards.
        shard: which of them are here.

    Raises:
        InputError: the file holds another run, or another process writes to it.
    """

    def __init__(
        self,
        path: Path | None,
        command: str,
        settings: Mapping[str, Any],
        decides: Any,
        units: int,
        shard: Shard = WHOLE,
    ) -> None:
        self.path = path
        self.units = units
        self.shard = shard
        self.results: dict[int, Any] = {}
        self._lock: IO[bytes] | None = None
        self._head = {
            "libra_edge_results": SCHEMA_VERSION,
            "command": command,
            "settings": dict(settings),
            "run": fingerprint([__version__, command, _decisive(settings), decides]),
            "units": units,
            "shard": [shard.number, shard.count],
        }
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(path)
        if path.stat().st_size > 0:
            self._go_on(path)
        else:
            _append(path, self._head)

    def _go_on(self, path: Path) -> None:
        head, rows, whole_bytes = _read(path)
        if any(head[key] != self._head[key] for key in ("command", "run", "units", "shard")):
            raise InputError(
                "results-of-another-run",
                f"{path} holds {_told(head)}; this is {_told(self._head)}"
                + ("." if _told(head) != _told(self._head) else ", of other settings."),
                "Name another file, or delete this one.",
            )
        os.truncate(path, whole_bytes)
        self.results = rows

    @property
    def missing(self) -> list[int]:
        """Units of this shard that have no result yet, in order."""
        return [n for n in self.shard.units(self.units) if n not in self.results]

    def add(self, unit: int, result: Any) -> None:
        """Keep a result; it is on its way to the disk when this returns."""
        self.results[unit] = result
        if self.path is not None:
            _append(self.path, {"unit": unit, "result": result})

    def close(self) -> None:
        """Let others write to the file; the results stay."""
        if self._lock is not None:
            self._lock.close()


def merge(paths: Sequence[Path]) -> tuple[str, dict[str, Any], list[Any]]:
    """The results of a run's shards, in the order of its units.

    Returns:
        The command, the settings of the run, and the results.

    Raises:
        InputError: the files are not all of one run, one shard is missing, twice there, or not
            finished.
        IntegrityError: a file is no file of results.
    """
    heads: dict[Path, dict[str, Any]] = {}
    results: dict[int, Any] = {}
    shards: dict[int, Path] = {}
    for path in paths:
        heads[path], rows, _ = _read(path)
        head, first = heads[path], heads[paths[0]]
        same = {k: head[k] for k in ("command", "run", "units")}
        if same != {k: first[k] for k in same} or head["shard"][1] != first["shard"][1]:
            raise InputError(
                "shards-of-different-runs",
                f"{path} is of another run than {paths[0]}: {_told(head)} and {_told(first)}.",
                "Merge shards of one command with the same policy, tasks, episodes and seed.",
            )
        number, count = head["shard"]
        if number in shards:
            raise InputError(
                "shard-twice",
                f"{path} and {shards[number]} are both shard {number} of {count}.",
                "Name each shard once.",
            )
        shards[number] = path
        lacking = [n for n in Shard(number, count).units(head["units"]) if n not in rows]
        if lacking:
            raise InputError(
                "shard-not-finished",
                f"{path} lacks {len(lacking)} of its results, the first is unit {lacking[0]}.",
                "Run its command again: it goes on where it stopped.",
            )
        results |= rows
    head = heads[paths[0]]
    count = head["shard"][1]
    if absent := sorted(set(range(1, count + 1)) - shards.keys()):
        raise InputError(
            "shard-missing",
            f"Shard {absent[0]} of {count} is not among the {len(paths)} files.",
            "Name the files of all shards.",
        )
    return head["command"], head["settings"], [results[n] for n in range(head["units"])]


def _decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that decide results: the policy is told by what it is, not by where it lies."""
    return {name: value for name, value in settings.items() if name != "policy"}


def _locked(path: Path) -> IO[bytes]:
    """The file, which is made if it is missing, for this process alone.

    Raises:
        InputError: another process has it.
    """
    stream = path.open("ab")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise InputError(
            "results-busy",
            f"Another run writes to {path}.",
            "Wait for its end, or name another file.",
        ) from None
    return stream


def fingerprint(content: Any) -> str:
    """Sha256 (hex) of something JSON can say."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _append(path: Path, row: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _read(path: Path) -> tuple[dict[str, Any], dict[int, Any], int]:
    """The head, results by unit, and how many bytes of whole lines there are."""
    if not path.is_file():
        raise InputError(
            "results-missing",
            f"There is no file of results at {path}.",
            "Name what `simulate --results` wrote.",
        )
    content = path.read_bytes()
    whole_bytes = content.rfind(b"\n") + 1
    try:
        head, *rows = [json.loads(line) for line in content[:whole_bytes].splitlines()]
        if set(head) != _KEYS or head["libra_edge_results"] != SCHEMA_VERSION:
            raise ValueError("its first line names no run")
        number, count = head["shard"]
        units = Shard.parse(f"{number}/{count}").units(int(head["units"]))
        results = {row["unit"]: row["result"] for row in rows}
        if any(unit not in units for unit in results) or len(results) != len(rows):
            raise ValueError("it holds a unit twice, or one of another shard")
    except (ValueError, KeyError, TypeError, InputError) as error:
        words = getattr(error, "fact", None) or str(error)
        raise IntegrityError(
            "results-invalid",
            f"{path} is no file of results: {words}.",
            "Name what `simulate --results` wrote, or delete it and run again.",
        ) from None
    return head, results, whole_bytes


def _told(head: Mapping[str, Any]) -> str:
    number, count = head["shard"]
    return f"shard {number} of {count} of `{head['command']}`, {head['units']} units"
