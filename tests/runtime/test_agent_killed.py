"""`libra-agent` killed, or failed by the system, at every call: the old policy or the new, whole.

Each test prints tried / survived. `LIBRA_EDGE_EVERY=1` tries every call (`make test-kill`); the
suite takes one in fifty.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import watching
from tests.runtime.agents import UNSIGNED, Robot, cached_agent, calls_of, light, note, started

EVERY = int(os.environ.get("LIBRA_EDGE_EVERY", "50"))
PAIRS = 1000 if EVERY == 1 else 12
# What begins before the agent's own work, or cannot fail a robot.
HARMLESS = {
    "execve",
    "brk",
    "arch_prctl",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "prlimit64",
}
HARMLESS |= {"mprotect", "munmap", "mmap", "exit_group", "getrandom", "futex", "rt_sigaction"}
HARMLESS |= {"rt_sigprocmask", "getpid", "gettid", "sched_getaffinity", "access", "madvise"}
# What a full or failing disk, or a signal, answers to; `EINTR` is no failure.
ERRORS = {
    "write": ("ENOSPC", "EIO", "EINTR"),
    "fsync": ("EIO", "ENOSPC"),
    "openat": ("EIO", "ENOSPC", "EMFILE"),
    "renameat": ("EIO", "ENOSPC"),
    "mkdirat": ("ENOSPC", "EIO"),
    "symlinkat": ("ENOSPC", "EIO"),
    "read": ("EIO", "EINTR"),
    "unlinkat": ("EIO",),
    "fchmod": ("EIO",),
}

pytestmark = pytest.mark.skipif(not watching.can_trace(), reason="strace may not trace here")


@pytest.fixture(scope="module")
def robots(
    release: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Robot, tuple[str, ...]]]:
    """A robot before each command, and the command."""
    shop, agent = tmp_path_factory.mktemp("agent"), cached_agent()
    one, two, new = (light(release, name, shop / name) for name in ("one", "two", "new"))
    first = Robot(agent, shop / "first")
    started(first, one)
    done = first.copy(shop / "done")
    started(done, two)
    note(done, previous="a")
    tried = done.copy(shop / "tried")
    note(tried, pending="b", deadline=2**31, pending_since_unix_s=2**30)
    ready = first.copy(shop / "ready")
    ready.ask("install", str(release), UNSIGNED)
    return {
        "install": (done, ("install", str(new), UNSIGNED)),
        "activate": (ready, ("activate", "--slot", "b")),
        "mark-good": (tried, ("mark-good",)),
        "mark-bad": (tried, ("mark-bad",)),
        "rollback": (done, ("rollback",)),
    }


def calls(robot: Robot, words: tuple[str, ...], folder: Path) -> list[tuple[str, int]]:
    trial = robot.copy(folder / "traced")
    done = trial.run(*words, trace=folder / "trace")
    assert done.returncode == 0, done.stdout
    return [call for call in calls_of(folder / "trace") if call[0] not in HARMLESS]


def whole(robot: Robot) -> str:
    """What runs: the name of a release, every byte of which is there."""
    assert robot.current in ("a", "b")
    robot.ask("verify")
    folder = robot.root / "slots" / str(robot.current)
    return str(json.loads((folder / "manifest.json").read_text())["name"])


def outcomes(robot: Robot, words: tuple[str, ...], folder: Path) -> set[str]:
    """What may run after the command, whether it came through or not."""
    before = whole(robot.copy(folder / "before"))
    after = robot.copy(folder / "after")
    after.ask(*words)
    return {before, whole(after)}


def converges(robot: Robot, words: tuple[str, ...]) -> None:
    """Running it again ends well, or says that it is done."""
    done = robot.run(*words)
    said = json.loads(done.stdout)
    over = said.get("code") in ("nothing-active", "no-previous", "slot-bad", "slot-empty")
    assert said["ok"] or over, said
    assert not list((robot.root / "slots").glob("*.new"))


def trials(folder: Path) -> Iterator[Path]:
    number = 0
    while True:
        number += 1
        yield folder / f"try-{number}"
        shutil.rmtree(folder / f"try-{number}", ignore_errors=True)


COMMANDS = ("install", "activate", "mark-good", "mark-bad", "rollback")


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_any_call(
    robots: dict[str, tuple[Robot, tuple[str, ...]]], command: str, tmp_path: Path
) -> None:
    robot, words = robots[command]
    allowed = outcomes(robot, words, tmp_path)
    places = calls(robot, words, tmp_path)[::EVERY]
    for (name, number), folder in zip(places, trials(tmp_path), strict=False):
        trial = robot.copy(folder)
        trial.run(*words, inject=f"{name}:signal=SIGKILL:when={number}")
        assert whole(trial) in allowed, (name, number)
        converges(trial, words)
        assert whole(trial) in allowed, (name, number)
    print(f"{command}: {len(places)} kills tried, {len(places)} survived")


@pytest.mark.parametrize("command", COMMANDS)
def test_failed_at_any_call(
    robots: dict[str, tuple[Robot, tuple[str, ...]]], command: str, tmp_path: Path
) -> None:
    robot, words = robots[command]
    allowed = outcomes(robot, words, tmp_path)
    faults = [
        (name, number, error)
        for name, number in calls(robot, words, tmp_path)
        for error in ERRORS.get(name, ())
    ][::EVERY]
    for (name, number, error), folder in zip(faults, trials(tmp_path), strict=False):
        trial = robot.copy(folder)
        done = trial.run(*words, inject=f"{name}:error={error}:when={number}")
        assert done.returncode in (0, 1, 2, 3, 127), (name, number, error, done)
        if done.returncode in (1, 3) and done.stdout:
            assert json.loads(done.stdout)["fact"]
        assert whole(trial) in allowed, (name, number, error)
        converges(trial, words)
    print(f"{command}: {len(faults)} failures tried, {len(faults)} survived")


def test_killed_killed_again_and_run(
    robots: dict[str, tuple[Robot, tuple[str, ...]]], tmp_path: Path
) -> None:
    drawn = random.Random(0)
    places = {c: calls(*robots[c], _made(tmp_path / c)) for c in COMMANDS}
    for _, folder in zip(range(PAIRS), trials(tmp_path), strict=False):
        command = drawn.choice(COMMANDS)
        robot, words = robots[command]
        trial = robot.copy(folder)
        for _ in range(2):
            name, number = drawn.choice(places[command])
            trial.run(*words, inject=f"{name}:signal=SIGKILL:when={number}")
        whole(trial)
        converges(trial, words)
        whole(trial)
    print(f"{PAIRS} pairs of kills tried, {PAIRS} survived")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
