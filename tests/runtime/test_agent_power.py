"""`libra-agent` after a loss of power: each state that the disk may be in then is opened by it.

Prints tried / survived. `LIBRA_EDGE_EVERY=1` tries every state (`make test-kill`); the suite takes
one in a hundred and sixty of an installation, which has thousands.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import watching
from tests.runtime import disk_states
from tests.runtime.agents import UNSIGNED, Robot, cached_agent, light, note, started
from tests.runtime.disk_states import Step, Traced

EVERY = int(os.environ.get("LIBRA_EDGE_EVERY", "160"))
RAN = ("good", "active")

pytestmark = pytest.mark.skipif(not watching.can_trace(), reason="strace may not trace here")


Case = tuple[Robot, tuple[str, ...]]


@pytest.fixture(scope="module")
def cases(release: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """A robot before each command, and the command."""
    shop, agent = tmp_path_factory.mktemp("power"), cached_agent()
    one, two, three = (light(release, name, shop / name) for name in ("one", "two", "three"))
    fresh = Robot(agent, shop / "fresh")
    fresh.root.mkdir()
    first = Robot(agent, shop / "first")
    started(first, one)
    both = first.copy(shop / "both")
    both.ask("install", str(two), UNSIGNED)
    done = first.copy(shop / "done")
    started(done, two)
    note(done, previous="a")
    tried = done.copy(shop / "tried")
    note(tried, pending="b", deadline=2**31, pending_since_unix_s=2**30)
    late = done.copy(shop / "late")
    note(late, pending="b", deadline=2**30, pending_since_unix_s=2**29)
    real = Robot(agent, shop / "real")
    started(real, one)
    real.ask("install", str(release), UNSIGNED)
    install = ("install", str(three), UNSIGNED)
    return {
        "first-install": (fresh, install),
        "install": (done, install),
        "install-again": (both, install),
        "activate": (real, ("activate", "--slot", "b")),
        "mark-good": (tried, ("mark-good",)),
        "mark-bad": (tried, ("mark-bad",)),
        "rollback": (done, ("rollback",)),
        "trial-over": (late, ("status",)),
    }


def traced(robot: Robot, words: tuple[str, ...], folder: Path) -> Traced:
    """The changes that a command makes, which has to succeed."""
    trial = robot.copy(folder / "traced")
    watch = [
        "strace",
        "-xx",
        "-s",
        "8000000",
        "-e",
        f"trace={disk_states.TRACED}",
        "-e",
        "signal=none",
    ]
    command = [str(robot.agent), *words, "--root", ".", "--json"]
    done = subprocess.run(
        [*watch, "-o", str(folder / "trace"), *command],
        cwd=trial.root,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return disk_states.read_trace(robot.root, folder / "trace")


def runs(robot: Robot) -> str | None:
    """The name of what runs; every slot that counts for something is whole."""
    status = robot.ask("status")
    active = status["active"]
    assert active == robot.current
    for name, slot in status["slots"].items():
        if slot is not None:
            robot.ask("verify", "--slot", name)
    if active is None:
        return None
    assert status["slots"][active]["state"] in RAN
    manifest = robot.root / "slots" / str(active) / "manifest.json"
    return str(json.loads(manifest.read_text())["name"])


def again(robot: Robot, words: tuple[str, ...]) -> None:
    done = robot.run(*words)
    said = json.loads(done.stdout)
    over = said.get("code") in ("nothing-active", "no-previous", "slot-bad", "slot-empty")
    assert said["ok"] or over, said
    left = {path.name for path in (robot.root / "slots").iterdir()}
    assert left <= {"a", "b"}


def survives(
    case: Case, run: Traced, states: Iterator[tuple[int, list[Step]]], folder: Path, every: int
) -> int:
    robot, words = case
    before = robot.copy(folder / "before")
    after = robot.copy(folder / "after")
    after.ask(*words)
    allowed, wanted = {runs(before), runs(after)}, runs(after)
    tried = 0
    for number, (end, steps) in enumerate(states):
        if number % every:
            continue
        trial = Robot(robot.agent, folder / "trial")
        disk_states.write_state(run, steps, trial.root)
        found = runs(trial)
        assert found in allowed, (end, steps[-3:])
        if end == len(run.steps):
            assert found == wanted, "what was said to be done was lost"
            assert slots(trial) == slots(after)
        if words != ("status",):
            again(trial, words)
        assert runs(trial) in allowed, (end, steps[-3:])
        shutil.rmtree(trial.root)
        tried += 1
    return tried


def slots(robot: Robot) -> dict[str, str | None]:
    found = robot.ask("status")["slots"]
    return {name: slot and slot["release"] for name, slot in found.items()}


CASES = ("first-install", "install", "install-again", "activate", "mark-good", "mark-bad")
CASES += ("rollback", "trial-over")


@pytest.mark.parametrize("command", CASES)
def test_power_is_lost_at_any_time(cases: dict[str, Case], command: str, tmp_path: Path) -> None:
    run = traced(*cases[command], tmp_path)
    assert run.steps
    every = EVERY if "install" in command else 1
    tried = survives(cases[command], run, disk_states.crash_states(run), tmp_path, every)
    print(f"{command}: {tried} states of the disk tried, {tried} survived")


@pytest.mark.parametrize("lost", ["files", "folders"])
def test_the_model_sees_what_is_not_synced(
    cases: dict[str, Case], lost: str, tmp_path: Path
) -> None:
    """Without half of the agent's syncs there are states that it does not survive."""
    run = traced(*cases["install"], tmp_path)
    kinds = {"files": "file", "folders": "folder"}
    run.syncs = [(at, node) for at, node in run.syncs if run.nodes[node].kind != kinds[lost]]
    with pytest.raises(AssertionError):
        survives(cases["install"], run, disk_states.crash_states(run), tmp_path, 13)
