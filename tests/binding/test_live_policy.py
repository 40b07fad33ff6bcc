"""Async mode as a controller at the robot's rate; and a planner that stops in a live run."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from libra_edge.binding.abi import PLAN_BEGIN, PLAN_END, REFINE_BEGIN, REFINE_END
from libra_edge.binding.live_policy import LivePolicy, summary_rows
from libra_edge.binding.policy import Policy
from libra_edge.binding.values import RunOptions
from libra_edge.data.types import Observation
from libra_edge.errors import LibraError
from libra_edge.policy.executor import State
from tests.runtime import tiny_release as tiny

HZ = 20.0


def observation(instruction: str = "open the tap") -> Observation:
    images, state = tiny.observation(np.random.default_rng(1))
    return Observation(images=images, state=state, instruction=instruction)


def test_acts_at_the_control_rate(release: Path) -> None:
    with LivePolicy(release) as policy:
        policy.reset(1, "open the tap")
        begin = time.monotonic()
        states = []
        for step in range(20):
            policy.act(observation("open the tap" if step < 10 else "close the drawer"))
            assert policy.tick_info is not None
            states.append(policy.tick_info.state)
        assert time.monotonic() - begin > 19 / HZ
    assert states.count(State.RUNNING) > 10
    stats = policy.stats
    assert stats["ticks"] == 20
    assert [row[0] for row in summary_rows(stats)] == ["tick", "planner", "refiner"]


def act_often(policy: LivePolicy, seen: Observation) -> None:
    for _ in range(20):
        policy.act(seen)


def test_a_fault_is_raised(release: Path) -> None:
    broken = observation()
    broken.images[0, 0, 0, tiny.BAD_ACTION] = 255
    with LivePolicy(release) as policy:
        policy.reset(1, "open the tap")
        with pytest.raises(LibraError, match="policy-fault"):
            act_often(policy, broken)


@pytest.mark.parametrize("stopped_s", [1.0, pytest.param(10.0, marks=pytest.mark.long)])
def test_a_planner_that_stops_holds_the_robot_and_it_recovers(
    release: Path, stopped_s: float
) -> None:
    """In real time: the planner's thread is the test's own, so that it can stand still."""
    stop, ended = threading.Event(), threading.Event()

    def work(policy: Policy, begin: int, end: int, pauses: bool) -> None:
        while not ended.is_set():
            if not (pauses and stop.is_set()) and policy.work(begin):
                policy.work(end)
            time.sleep(0.002)

    with Policy(release) as policy:
        policy.reset(1, "open the tap")
        policy.start(RunOptions(manual=True, refill_at=2))
        threads = [
            threading.Thread(target=work, args=(policy, PLAN_BEGIN, PLAN_END, True)),
            threading.Thread(target=work, args=(policy, REFINE_BEGIN, REFINE_END, False)),
        ]
        for thread in threads:
            thread.start()
        seen, period_s = observation(), 1 / HZ

        def run(seconds: float) -> list[State]:
            states = []
            for _ in range(round(seconds / period_s)):
                policy.observe(seen.images, seen.state, time.monotonic_ns())
                states.append(policy.tick(time.monotonic_ns())[1].state)
                time.sleep(period_s)
            return states

        try:
            run(1.0)
            stop.set()
            held = run(stopped_s)
            stop.clear()
            recovered = run(1.5)
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    # A plan covers L steps: after them there is nothing to send.
    assert set(held[tiny.L :]) == {State.HOLD}
    assert recovered.count(State.RUNNING) > len(recovered) / 2
    assert recovered[-1] is State.RUNNING
