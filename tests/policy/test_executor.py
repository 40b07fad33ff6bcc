"""The execution semantics, with scripted engines whose outputs tell where they came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libra_edge.policy.execution.noise import chunk_noise
from libra_edge.policy.executor import Blend, Executor, IntentBuffer, State
from tests.tiny import tiny_config

# Scripted plans name their step, which a policy of ten bins would refuse.
CONFIG = tiny_config(bins=1000)
H, L, D = CONFIG.chunk, CONFIG.plan_steps, CONFIG.action_dim
IMAGES = np.zeros((2, 16, 24, 3), np.uint8)
INSTRUCTION = np.zeros(5, np.int64)


def plan_for(step: int, length: int = L) -> Any:
    """Intents that name the step they are for."""
    return np.tile(np.arange(step, step + length, dtype=np.int32)[:, None], (1, D))


class Scripted:
    """A planner whose intents name their step; a refiner that scales them into the limits."""

    def __init__(self) -> None:
        self.plans: list[int] = []
        self.refined: list[tuple[int, Any]] = []
        self.poison: float | None = None

    def plan(self, images: Any, instruction: Any, state: Any) -> tuple[Any, Any]:
        step = int(state[0])
        self.plans.append(step)
        return plan_for(step), np.ones((L, D), np.float32)

    def refine(self, images: Any, state: Any, intent: Any, noise: Any) -> Any:
        self.refined.append((int(state[0]), noise))
        actions = intent.astype(np.float32) / 1000
        if self.poison is not None:
            actions[-1, -1] = self.poison
        return actions


def run(executor: Executor, steps: int, start: int = 0) -> list[tuple[Any, Any]]:
    return [
        executor.step(IMAGES, np.array([s, 0, 0], np.float32)) for s in range(start, start + steps)
    ]


def test_an_old_observation_holds_and_its_steps_are_lost() -> None:
    """Half a second is 40 steps at 80 Hz; here 2 steps are allowed."""
    engines = Scripted()
    executor = Executor(engines, CONFIG, max_observation_age_s=2 / CONFIG.embodiment.control_hz)
    executor.reset(7, INSTRUCTION)
    assert executor.step(None, None)[1].reason == "nothing observed yet"
    run(executor, 1, start=1)
    later = [executor.step(None, None)[1] for _ in range(5)]
    assert [info.state for info in later] == [State.RUNNING] * 2 + [State.HOLD] * 3
    assert later[-1].reason == "observation is too old"
    action, info = run(executor, 1, start=7)[0]
    assert info.state is State.RUNNING
    # The intents are those of step 7, wherever the plan of step 1 still covers it.
    np.testing.assert_array_equal(action, np.full(D, np.float32(7) / np.float32(1000)))


def test_sync_plans_every_m_chunks_and_refines_every_chunk() -> None:
    engines = Scripted()
    executor = Executor(engines, CONFIG)
    executor.reset(7, INSTRUCTION)
    outcome = run(executor, 3 * L)
    assert engines.plans == [0, L, 2 * L]
    assert [step for step, _ in engines.refined] == list(range(0, 3 * L, H))
    for chunk, (_, noise) in enumerate(engines.refined):
        np.testing.assert_array_equal(noise, chunk_noise(7, chunk, (H, D)))
    for step, (action, info) in enumerate(outcome):
        np.testing.assert_allclose(action, step / 1000, atol=1e-7)
        assert info.step == step
        assert info.state is State.RUNNING
        assert info.plan_age_steps == step % L


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), max_size=12),
    st.integers(0, 40),
    st.integers(1, 5),
)
def test_buffer_gives_the_newest_plan_s_intents_aligned_by_step(
    plans: list[tuple[int, int]], now: int, steps: int
) -> None:
    """Against the plainest model: a plan, if taken, is the only one that counts."""
    buffer = IntentBuffer(D)
    current: tuple[int, int] | None = None
    for plan_step, length in plans:
        taken = buffer.replace(plan_step, plan_for(plan_step, length), now)
        newer = current is None or plan_step > current[0]
        assert taken == (newer and plan_step + length > now)
        if taken:
            current = (plan_step, length)
    covered = current is not None and current[0] <= now and now + steps <= sum(current)
    found = buffer.take(now, steps)
    if covered:
        np.testing.assert_array_equal(found, plan_for(now, steps))
    else:
        assert found is None


@given(st.integers(0, L - 1), st.integers(1, 2))
def test_async_never_executes_an_intent_of_another_step(delay: int, refill_at: int) -> None:
    engines = Scripted()
    executor = Executor(engines, CONFIG, "async", planner_delay_steps=delay, refill_at=refill_at)
    executor.reset(0, INSTRUCTION)
    running = 0
    for step, (action, info) in enumerate(run(executor, 10 * L)):
        if info.state is State.RUNNING:
            running += 1
            np.testing.assert_allclose(action, step / 1000, atol=1e-7)
            assert info.plan_age_steps <= L
        else:
            assert info.state is State.HOLD
    assert running >= 9 * L - 2 * L if delay <= H else running > 0


@given(st.integers(0, L - 1), st.integers(0, 3 * H), st.integers(0, H - 1), st.integers(0, L))
def test_a_refiner_slower_than_a_chunk_acts_while_its_actions_can_arrive(
    planner: int, refiner: int, blended: int, ahead: int
) -> None:
    engines = Scripted()
    executor = Executor(
        engines,
        CONFIG,
        "async",
        planner_delay_steps=planner,
        refiner_delay_steps=refiner,
        refill_at=CONFIG.chunks_per_plan,
        refine_ahead_steps=ahead,
        blend=Blend(blended, blended // 2),
    )
    executor.reset(0, INSTRUCTION)
    outcome = run(executor, 10 * L)
    for step, (action, info) in enumerate(outcome):
        if info.state is State.RUNNING:
            np.testing.assert_allclose(action, step / 1000, atol=1e-7)
    assert {info.state for _, info in outcome} <= {State.RUNNING, State.HOLD}
    running = sum(info.state is State.RUNNING for _, info in outcome[5 * L :])
    if planner + refiner < L:
        assert running > 0
    if planner == 0 and refiner <= L - H:
        # One call after the other, at worst without overlap, and each gives all its new steps.
        assert running >= 0.8 * 5 * L * (H - blended) / (H - blended + refiner)


def test_one_slow_refiner_call_does_not_delay_the_next() -> None:
    executor = Executor(Scripted(), CONFIG, "async", refill_at=2, refine_ahead_steps=H)
    executor.reset(0, INSTRUCTION)
    run(executor, L)
    executor._refiner_delay = L - 1
    run(executor, H, L)
    executor._refiner_delay = 0
    outcome = run(executor, 3 * L, L + H)
    assert sum(info.state is State.HOLD for _, info in outcome) <= L


def test_async_holds_until_the_first_plan_arrives() -> None:
    executor = Executor(Scripted(), CONFIG, "async", planner_delay_steps=2)
    executor.reset(0, INSTRUCTION)
    states = [info.state for _, info in run(executor, 4)]
    assert states == [State.HOLD, State.HOLD, State.RUNNING, State.RUNNING]


def test_async_refuses_a_plan_that_is_too_old() -> None:
    executor = Executor(Scripted(), CONFIG, "async", planner_delay_steps=3, max_plan_age_steps=2)
    executor.reset(0, INSTRUCTION)
    assert {info.state for _, info in run(executor, 20)} == {State.HOLD}


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_latches_a_fault(poison: float) -> None:
    engines = Scripted()
    executor = Executor(engines, CONFIG)
    executor.reset(0, INSTRUCTION)
    before = run(executor, H)[-1][0]
    engines.poison = poison
    action, info = run(executor, 1, H)[0]
    assert info.state is State.FAULT
    # delta holds at zero, absolute and gripper keep the last command
    np.testing.assert_array_equal(action, [0, before[1], before[2]])
    engines.poison = None
    assert run(executor, 1, H + 1)[0][1].state is State.FAULT
    executor.reset(0, INSTRUCTION)
    assert run(executor, 1)[0][1].state is State.RUNNING


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("token", [-1, 1000])
def test_an_intent_that_does_not_exist_latches_a_fault(mode: Any, token: int) -> None:
    engines = Scripted()
    executor = Executor(engines, CONFIG, mode)
    engines.plan = lambda *_: (np.full((L, D), token, np.int32), None)  # type: ignore[method-assign]
    outcome = run(executor, 3)
    assert {info.state for _, info in outcome} == {State.FAULT}
    assert not engines.refined


def test_reset_keeps_the_last_command() -> None:
    engines = Scripted()
    executor = Executor(engines, CONFIG, "async", planner_delay_steps=1)
    executor.reset(0, INSTRUCTION)
    last = run(executor, 4)[-1][0]
    executor.reset(0, INSTRUCTION)
    action, info = run(executor, 1)[0]
    assert info.state is State.HOLD
    np.testing.assert_array_equal(action, [0, last[1], last[2]])


def test_a_state_that_is_not_finite_latches_a_fault() -> None:
    executor = Executor(Scripted(), CONFIG)
    _, info = executor.step(IMAGES, np.array([0, np.nan, 0], np.float32))
    assert info.state is State.FAULT


def test_actions_outside_the_limits_are_clamped_and_flagged() -> None:
    engines = Scripted()
    engines.poison = 55.0
    executor = Executor(engines, CONFIG)
    executor.reset(0, INSTRUCTION)
    outcome = run(executor, H)
    assert [info.clamped for _, info in outcome] == [False] * (H - 1) + [True]
    assert outcome[-1][0][-1] == CONFIG.embodiment.actions[-1].upper


def test_a_run_replays() -> None:
    first, second = (Executor(Scripted(), CONFIG) for _ in range(2))
    for executor in (first, second):
        executor.reset(3, INSTRUCTION)
    for (a, _), (b, _) in zip(run(first, 20), run(second, 20), strict=True):
        np.testing.assert_array_equal(a, b)
