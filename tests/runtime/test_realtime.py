"""What le_tick may do, the virtual-clock simulation, and the threads for real."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from libra_edge.binding.policy import Policy
from libra_edge.binding.values import RunOptions
from libra_edge.policy.executor import State
from tests.runtime import native_build
from tests.runtime import tiny_release as tiny


def test_ticks_use_no_memory_no_lock_and_no_system_call(release: Path, tmp_path: Path) -> None:
    program = native_build.c_program("interposer", tmp_path, release)
    result = native_build.run_c(program, release, "1000000", "10000")
    if result.returncode == 77:
        pytest.skip("this kernel has no syscall user dispatch to watch system calls with")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("0 memory, 0 locks, 0 system calls\n")


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return native_build.core_program("simulation", tmp_path_factory.mktemp("simulation"))


def simulate(program: Path, first: int, count: int) -> None:
    """A failing seed replays: run the program with `SEED 1 trace`."""
    command = [str(program), str(first), str(count)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert result.stdout.startswith(f"{count} episodes")
    assert int(result.stdout.split(", ")[-1].split()[0]) > count  # steps that a blend froze


def test_a_thousand_episodes_in_virtual_time(simulation: Path) -> None:
    simulate(simulation, 0, 1000)


@pytest.mark.long
def test_a_hundred_thousand_episodes_in_virtual_time(simulation: Path) -> None:
    simulate(simulation, 1000, 100_000)


def test_an_episode_replays(simulation: Path) -> None:
    command = [str(simulation), "7", "1", "trace"]
    runs = [subprocess.run(command, capture_output=True, check=True).stdout for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(runs[0].splitlines()) > 20


def test_runs_in_real_time(policy: Policy) -> None:
    policy.reset(1, "open the tap")
    policy.start(RunOptions(refill_at=tiny.M))
    rng = np.random.default_rng(0)
    images, state = tiny.observation(rng)
    states, due = [], time.monotonic()
    for _ in range(150):
        now_ns = time.monotonic_ns()
        policy.observe(images, state, now_ns)
        states.append(policy.tick(now_ns)[1].state)
        due += 0.01
        time.sleep(max(0.0, due - time.monotonic()))
    # Loaded machines may miss a step now and then; a policy that works runs nearly always.
    assert states.count(State.RUNNING) > 100
    assert State.FAULT not in states
    stats = policy.stats()
    assert stats["refiner_ns"]["count"] > 20
    policy.stop()
