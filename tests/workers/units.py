"""Work for workers, which other processes have to find."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from libra_edge.errors import InputError


@contextmanager
def adding(amount: int) -> Iterator[int]:
    """A state that a worker keeps."""
    yield amount


def add(state: int, item: int) -> int:
    time.sleep(0.002 * (item % 5))
    return state + item


def add_or_die_once(folder: str, state: int, item: int) -> int:
    """Unit 3 takes its worker with it the first time."""
    mark = Path(folder, "died")
    if item == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return state + item


def die(state: int, item: int) -> int:
    """Unit 2 always does."""
    if item == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return state + item


def refuse(state: int, item: int) -> int:
    if item == 4:
        raise InputError("unit-refused", f"Unit {item} is none.", "Leave it out.")
    return state + item


def count_while_one_dies(folder: str, state: int, item: int) -> int:
    """Notes how many run beside this one; unit 3 takes its worker with it the first time."""
    add_or_die_once(folder, state, item)
    running = Path(folder, f"running-{os.getpid()}-{item}")
    running.touch()
    time.sleep(0.05)
    others = [path for path in Path(folder).glob("running-*") if _alive(path)]
    Path(folder, f"seen-{item}").write_text("x" * len(others))
    running.unlink()
    return state + item


def _alive(path: Path) -> bool:
    return Path("/proc", path.name.split("-")[1]).exists()
