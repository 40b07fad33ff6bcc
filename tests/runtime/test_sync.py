"""Synchronous semantics against a small oracle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libra_edge.binding.policy import Policy
from libra_edge.errors import InputError, LibraError
from libra_edge.policy.config import PolicyConfig
from libra_edge.policy.execution.noise import chunk_noise
from libra_edge.policy.executor import Executor, State
from tests.runtime import tiny_release as tiny
from tests.runtime.tiny_release import BAD_ACTION, BAD_INTENT, BAD_MARGIN, D, H, L, T

TOKENS = np.arange(T)


def oracle(observations: list[Any], seed: int) -> Iterator[tuple[Any, bool, bool]]:
    """Control step by control step: the action, whether planner and refiner ran."""
    intents: Any = np.zeros((0, D))
    for step, (images, state) in enumerate(observations):
        planned = refined = False
        if step % H == 0:
            refined = True
            if len(intents) == 0:
                planned = True
                intents, _ = tiny.plan(images, TOKENS, state)
            noise = chunk_noise(seed, step // H, (H, D))
            actions, intents = tiny.refine(images, state, intents[:H], noise), intents[H:]
        yield actions[step % H], planned, refined


def drive(policy: Policy, observations: list[Any]) -> list[tuple[Any, Any]]:
    results = []
    for index, (images, state) in enumerate(observations):
        policy.observe(images, state, timestamp_ns=1000 + index)
        results.append(policy.step())
    return results


def some_observations(count: int) -> list[Any]:
    rng = np.random.default_rng(count)
    return [tiny.observation(rng) for _ in range(count)]


def start(policy: Policy, seed: int = 5) -> None:
    policy.reset(seed, "open the tap")
    policy.set_instruction(TOKENS)


def bad(channel: int) -> tuple[Any, Any]:
    images, state = some_observations(1)[0]
    images[0, 0, 0, channel] = 255
    return images, state


def test_matches_the_oracle(policy: Policy) -> None:
    observations = some_observations(3 * L + 1)
    for seed in (5, 2**63 + 11):
        start(policy, seed)
        results = drive(policy, observations)
        clamped_steps = 0
        expected = oracle(observations, seed)
        for step, ((action, info), (raw, planned, refined)) in enumerate(
            zip(results, expected, strict=True)
        ):
            limited = np.clip(raw, tiny.LOWER, tiny.UPPER)
            np.testing.assert_allclose(action, limited, atol=1e-6)
            assert (action >= tiny.LOWER).all()
            assert (action <= tiny.UPPER).all()
            assert info.state is State.RUNNING
            assert (info.planner_ran, info.refiner_ran) == (planned, refined)
            assert (info.planner_duration_ns > 0, info.refiner_duration_ns > 0) == (
                planned,
                refined,
            )
            assert (info.step, info.chunk) == (step, step // H)
            assert (info.plan_step, info.plan_age_steps) == (step // L * L, step % L)
            assert info.observation_timestamp_ns == 1000 + step
            outside = (raw < tiny.LOWER) | (raw > tiny.UPPER)
            assert info.clamped_mask == sum(1 << d for d in range(D) if outside[d])
            assert (info.clamped, info.clamped_count) == (outside.any(), outside.sum())
            clamped_steps += info.clamped
        assert 0 < clamped_steps < len(observations)


def reference_config() -> PolicyConfig:
    return PolicyConfig.model_validate(
        {
            "embodiment": tiny.manifest()["embodiment"],
            **{"bins": tiny.N, "chunk": H, "chunks_per_plan": tiny.M},
            **{"instruction_length": T, "vocabulary": 10},
        }
    )


def test_matches_the_reference_executor(policy: Policy) -> None:
    class Engines:
        plan, refine = staticmethod(tiny.plan), staticmethod(tiny.refine)

    executor = Executor(Engines(), reference_config())
    executor.reset(5, TOKENS)
    start(policy, 5)
    observations = [*some_observations(2 * L + 2), *some_observations(4)]
    for (images, state), (action, info) in zip(
        observations, drive(policy, observations), strict=True
    ):
        expected, reference = executor.step(images, state)
        np.testing.assert_allclose(action, expected, atol=1e-6)
        for name in ("step", "state", "plan_age_steps", "planner_ran", "refiner_ran", "clamped"):
            assert getattr(info, name) == getattr(reference, name), name


def test_only_observations_at_chunk_boundaries_count(policy: Policy) -> None:
    observations = some_observations(L)
    start(policy)
    expected = [action for action, _ in drive(policy, observations)]
    start(policy)
    changed = [o if i % H == 0 else some_observations(99)[i] for i, o in enumerate(observations)]
    np.testing.assert_array_equal([action for action, _ in drive(policy, changed)], expected)
    start(policy)
    other = [some_observations(99)[0], *observations[1:]]
    assert not np.array_equal([action for action, _ in drive(policy, other)], expected)


def test_replays_exactly_and_depends_on_the_seed(release: Path) -> None:
    observations = some_observations(2 * L)
    runs = []
    for seed in (5, 5, 6):
        with Policy(release, seed=seed, threads=2) as policy:
            policy.set_instruction(TOKENS)
            runs.append([action for action, _ in drive(policy, observations)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_a_new_instruction_waits_for_the_next_plan(policy: Policy) -> None:
    observations = [some_observations(1)[0]] * (2 * L)
    start(policy)
    expected = [action for action, _ in drive(policy, observations)]
    start(policy)
    found = [action for action, _ in drive(policy, observations[:1])]
    policy.set_instruction(TOKENS + 1)
    found += [action for action, _ in drive(policy, observations[1:])]
    np.testing.assert_array_equal(found[:L], expected[:L])
    assert not np.array_equal(found[L:], expected[L:])


def test_holds_until_observed_and_told(release: Path) -> None:
    images, state = some_observations(1)[0]
    nothing = np.clip(np.zeros(D, dtype=np.float32), tiny.LOWER, tiny.UPPER)
    with Policy(release, seed=5) as policy:
        action, info = policy.step()
        assert (info.state, info.reason) == (State.HOLD, "nothing observed yet")
        assert (info.plan_step, info.plan_age_steps) == (-1, -1)
        assert info.no_command
        np.testing.assert_array_equal(action, nothing)
        policy.observe(images, state)
        action, info = policy.step()
        assert (info.state, info.reason) == (State.HOLD, "no instruction yet")
        assert info.step == 1
        policy.set_instruction(TOKENS)
        action, info = policy.step()
        assert info.state is State.RUNNING
        assert not info.no_command
        # Steps go on counting; plans, chunks and noise begin with the first action.
        assert (info.step, info.chunk, info.plan_step, info.plan_age_steps) == (2, 0, 2, 0)
        start(policy)
        np.testing.assert_array_equal(action, drive(policy, [(images, state)])[0][0])


def test_hold_keeps_the_last_command_across_a_reset(policy: Policy) -> None:
    start(policy)
    last, _ = drive(policy, some_observations(2))[-1]
    start(policy)
    action, info = policy.step()
    assert (info.state, info.step, info.no_command) == (State.HOLD, 0, False)
    np.testing.assert_array_equal(action, [0, 0, *last[2:]])


@pytest.mark.parametrize(
    ("channel", "reason"),
    [
        (BAD_MARGIN, "planner output is not finite"),
        (BAD_INTENT, "planner gave an intent outside its bins"),
        (BAD_ACTION, "refiner output is not finite"),
    ],
)
def test_a_bad_engine_output_latches_a_fault(policy: Policy, channel: int, reason: str) -> None:
    good = some_observations(1)[0]
    start(policy)
    last, _ = drive(policy, [good] * L)[-1]
    action, info = drive(policy, [bad(channel)])[0]
    assert (info.state, info.reason) == (State.FAULT, reason)
    assert info.detail
    np.testing.assert_array_equal(action, [0, 0, *last[2:]])
    for action, info in drive(policy, [good] * (L + 1)):
        assert (info.state, info.reason, info.detail) == (State.FAULT, reason, "")
        assert not info.planner_ran
        np.testing.assert_array_equal(action, [0, 0, *last[2:]])
    start(policy)
    assert drive(policy, [good])[0][1].state is State.RUNNING


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bad_state_latches_a_fault(policy: Policy, value: float) -> None:
    images, state = some_observations(1)[0]
    start(policy)
    drive(policy, [(images, state)])
    broken = state.copy()
    broken[1] = value
    with pytest.raises(LibraError) as caught:
        policy.observe(images, broken)
    assert caught.value.code == "not-finite"
    policy.observe(images, state)
    _, info = policy.step()
    assert (info.state, info.reason) == (State.FAULT, "state is not finite")
    start(policy)
    assert drive(policy, [(images, state)])[0][1].state is State.RUNNING


def test_direct_calls_leave_the_control_state_alone(policy: Policy) -> None:
    observations = some_observations(L + 1)
    start(policy)
    expected = [action for action, _ in drive(policy, observations)]
    start(policy)
    found = []
    for images, state in observations:
        policy.observe(images, state)
        other_images, other_state = some_observations(50)[7]
        intent, margin = policy.plan(other_images, TOKENS + 3, other_state)
        wanted = tiny.plan(other_images, TOKENS + 3, other_state)
        np.testing.assert_array_equal(intent, wanted[0])
        np.testing.assert_array_equal(margin, wanted[1])
        noise = policy.noise(9, 4)
        np.testing.assert_array_equal(noise, chunk_noise(9, 4, (H, D)))
        actions = policy.refine(other_images, other_state, intent[:H], noise)
        raw = tiny.refine(other_images, other_state, intent[:H], noise)
        np.testing.assert_allclose(actions, raw, atol=1e-6)
        found.append(policy.step()[0])
    np.testing.assert_array_equal(found, expected)


def test_direct_calls_report_bad_outputs_without_a_fault(policy: Policy) -> None:
    start(policy)
    noise, intent = policy.noise(0, 0), np.zeros((H, D), dtype=np.int32)
    for channel, code in ((BAD_MARGIN, "not-finite"), (BAD_INTENT, "engine")):
        images, state = bad(channel)
        with pytest.raises(LibraError) as caught:
            policy.plan(images, TOKENS, state)
        assert caught.value.code == code
    images, state = bad(BAD_ACTION)
    with pytest.raises(LibraError, match="not-finite"):
        policy.refine(images, state, intent, noise)
    with pytest.raises(InputError, match="outside"):
        policy.refine(images, state, intent + tiny.N, noise)
    with pytest.raises(LibraError, match="not-finite"):
        policy.refine(images, state, intent, noise * np.float32(np.nan))
    assert drive(policy, some_observations(1))[0][1].state is State.RUNNING
