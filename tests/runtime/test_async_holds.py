"""Async mode when something is missing, late or wrong: HOLD, FAULT, reset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libra_edge.binding.abi import PLAN_BEGIN, PLAN_END, REFINE_BEGIN, REFINE_END
from libra_edge.binding.policy import Policy
from libra_edge.binding.values import RunOptions
from libra_edge.policy.executor import Executor, State
from tests.runtime import tiny_release as tiny
from tests.runtime.test_async import (
    MANUAL,
    PERIOD_NS,
    TOKENS,
    Loop,
    changed,
    config,
    some_observations,
    steady,
)
from tests.runtime.tiny_release import BAD_ACTION, BAD_INTENT, BAD_MARGIN, D, H, L, M


def test_holds_without_instruction_and_observation(policy: Policy) -> None:
    policy.reset(0, "open the tap")
    policy.start(MANUAL)
    action, info = policy.tick(1)
    assert (info.state, info.reason) == (State.HOLD, "nothing observed yet")
    assert info.no_command
    np.testing.assert_array_equal(
        action, np.clip(np.zeros(D), tiny.LOWER, tiny.UPPER) * [0, 0, 1, 1]
    )
    assert not policy.work(PLAN_BEGIN)
    policy.observe(*some_observations(1)[0], 1)
    assert policy.tick(2)[1].reason == "no valid plan"


def test_an_old_observation_holds_and_a_fresh_one_ends_it(policy: Policy) -> None:
    loop = steady(policy, RunOptions(manual=True, max_observation_age_s=0.06, refine_ahead_steps=H))
    before = loop.tick()
    assert before[1].state is State.RUNNING
    action, info = loop.tick()
    assert (info.state, info.reason) == (State.HOLD, "observation is too old")
    assert info.observation_age_ns == 2 * PERIOD_NS
    np.testing.assert_array_equal(action, [0, 0, *before[0][2:]])
    states = [info.state for _, info in loop.run(some_observations(5))]
    assert states[-1] is State.RUNNING


@pytest.mark.parametrize("jump_s", [3600, -3600, 5, -5])
def test_a_clock_that_jumps_costs_a_hold_until_the_next_observation(
    policy: Policy, jump_s: int
) -> None:
    loop = steady(policy)
    loop.now_ns += jump_s * 10**9
    assert loop.tick()[1].reason == "observation is too old"
    assert loop.run(some_observations(3))[-1][1].state is State.RUNNING


def test_ages_by_ticks_when_the_clock_goes_back(policy: Policy) -> None:
    loop = steady(policy, RunOptions(manual=True, max_observation_age_s=0.2))
    loop.now_ns -= 2 * PERIOD_NS
    reasons = [loop.tick()[1].reason for _ in range(8)]
    assert reasons[-1] == "observation is too old"


@pytest.mark.parametrize("begin", [PLAN_BEGIN, REFINE_BEGIN])
def test_an_engine_that_takes_too_long_holds_until_it_returns(policy: Policy, begin: int) -> None:
    loop = steady(policy, RunOptions(manual=True, engine_timeout_s=0.11))
    reasons = []
    for images, state in some_observations(4 * L):
        policy.observe(images, state, loop.now_ns)
        for piece in (PLAN_BEGIN, REFINE_BEGIN):
            if policy.work(piece) and piece != begin:
                policy.work(piece + 1)
        reasons.append(loop.tick()[1].reason)
    assert "engine call takes too long" in reasons
    first = reasons.index("engine call takes too long")
    assert set(reasons[first:]) == {"engine call takes too long"}
    assert policy.work(begin + 1)
    assert loop.run(some_observations(2 * L))[-1][1].state is State.RUNNING


def test_a_planner_that_stops_leads_to_hold_within_its_horizon_and_back(policy: Policy) -> None:
    loop = steady(policy, RunOptions(manual=True, engine_timeout_s=100))
    states = []
    for images, state in some_observations(3 * L):
        policy.observe(images, state, loop.now_ns)
        policy.work(PLAN_BEGIN)
        while policy.work(REFINE_BEGIN):
            policy.work(REFINE_END)
        states.append(loop.tick()[1])
    held = [info.reason for info in states if info.state is State.HOLD]
    assert len(held) >= 2 * L
    assert set(held) == {"no valid plan"}
    assert max(info.plan_age_steps for info in states) < L
    policy.work(PLAN_END)  # far too old by now
    assert policy.stats()["dropped_plans"] == 1
    assert loop.run(some_observations(L))[-1][1].state is State.RUNNING


@pytest.mark.parametrize(
    ("channel", "reason"),
    [
        (BAD_MARGIN, "planner output is not finite"),
        (BAD_ACTION, "refiner output is not finite"),
        (BAD_INTENT, "planner gave an intent outside its bins"),
    ],
)
def test_bad_output_latches_a_fault_until_reset(policy: Policy, channel: int, reason: str) -> None:
    loop = steady(policy)
    images, state = some_observations(1)[0]
    images[0, 0, 0, channel] = 255
    outcome = [loop.once(images, state) for _ in range(2 * L)]
    assert outcome[-1][1].reason == reason
    assert policy.fault_text
    assert not policy.work(PLAN_BEGIN)
    kept = outcome[-1][0]
    for action, info in loop.run(some_observations(3)):
        assert info.state is State.FAULT
        np.testing.assert_array_equal(action, [0, 0, *kept[2:]])
    policy.stop()
    assert policy.step()[1].reason == reason  # a fault outlives async mode
    policy.start(MANUAL)
    assert policy.tick(0)[1].reason == reason
    policy.reset(1, "open the tap")
    assert policy.fault_text == ""
    loop.ready = [None, None]
    assert loop.run(some_observations(3))[-1][1].state is State.RUNNING
    assert policy.stats()["faults"] == 1


def test_a_state_that_is_not_finite_latches_a_fault(policy: Policy) -> None:
    loop = steady(policy)
    images, state = some_observations(1)[0]
    state[1] = np.inf
    with pytest.raises(Exception, match="not-finite"):
        policy.observe(images, state, loop.now_ns)
    assert loop.tick()[1].reason == "state is not finite"


def test_results_of_before_a_reset_are_dropped(policy: Policy) -> None:
    loop = steady(policy, RunOptions(manual=True, refill_at=M, refine_ahead_steps=H))
    loop.delays = (1, 1)
    for observation in some_observations(4 * L):
        loop.once(*observation)
        if None not in loop.ready:
            break
    chunks = policy.stats()["chunks"]
    policy.reset(9, "open the tap")
    assert policy.work(PLAN_END)
    assert policy.work(REFINE_END)
    policy.observe(*some_observations(1)[0], loop.now_ns)
    _, info = loop.tick()
    assert (info.step, info.reason, info.chunks_seen) == (0, "no valid plan", chunks)


def test_a_dimension_may_fault_at_its_limit(copy: Callable[[], Path]) -> None:
    def strict(content: dict[str, Any]) -> None:
        changes = {"on_limit": "fault", "lower": -0.9, "upper": 0.9}
        content["embodiment"]["actions"][0] |= changes

    release, content = changed(copy, strict)
    with Policy(release) as policy:
        executor = Executor(policy, config(content), "async", refine_ahead_steps=H)
        loop = Loop(policy)
        loop.start(RunOptions(manual=True, refine_ahead_steps=H))
        executor.reset(5, TOKENS)
        reasons = set()
        for images, state in some_observations(4 * L):
            action, info = loop.once(images, state)
            expected, reference = executor.step(images, state)
            np.testing.assert_array_equal(action, expected)
            assert info.reason == reference.reason
            reasons.add(info.reason)
        assert reasons == {"", "action is out of limits"}
        assert "outside the limits" in policy.fault_text
        policy.stop()
        policy.reset(5, "open the tap")
        policy.set_instruction(TOKENS)
        for images, state in some_observations(4 * L):
            policy.observe(images, state)
            info = policy.step()[1]
        assert info.reason == "action is out of limits"
