"""The reference of the C ABI against the reference executor: whole steps give the same."""

from __future__ import annotations

import numpy as np

from libra_edge.binding import abi
from libra_edge.binding.abi import PLAN_BEGIN, PLAN_END, REFINE_BEGIN, REFINE_END
from libra_edge.policy.config import PolicyConfig
from libra_edge.policy.executor import Blend, Executor
from libra_edge.verification.native.async_parts import Options
from libra_edge.verification.native.async_reference import AsyncReference
from libra_edge.verification.native.probe import Contract, Probe
from libra_edge.verification.native.reference import CheckedEngines, Limits, SyncReference
from libra_edge.verification.native.releases import wide_robot

CONTRACT = Contract(wide_robot(), 7, 4, 3, 5)
WORDS = np.arange(5)
CONFIG = PolicyConfig(
    embodiment=CONTRACT.embodiment,
    bins=CONTRACT.bins,
    chunk=CONTRACT.chunk,
    chunks_per_plan=CONTRACT.chunks_per_plan,
    instruction_length=CONTRACT.instruction_length,
    vocabulary=10,
)
LONG_NS = 10**15


def observations(count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        images = rng.integers(0, 256, CONTRACT.image_shape, dtype=np.uint8)
        images.reshape(-1)[:3] = 0, rng.integers(10, 120), rng.integers(0, 9)
        found.append((images, rng.standard_normal(5).astype(np.float32)))
    return found


def test_sync_steps_are_those_of_the_executor() -> None:
    probe = Probe(CONTRACT)
    ours, executor = SyncReference(probe, 3, 0, frozenset(range(10))), Executor(probe, CONFIG)
    executor.reset(3, WORDS)
    ours.set_instruction(WORDS)
    rng, states = np.random.default_rng(4), set()
    for images, state in observations(200, 2):
        stopped = rng.random() < 0.7 and 20 < executor._step < 120
        if not stopped:
            ours.observe(images, state, 0)
        action, info = executor.step(*((None, None) if stopped else (images, state)))
        found = ours.step()
        np.testing.assert_array_equal(found["action"], action)
        assert (found["state"], found["step"]) == (int(info.state), info.step)
        assert abi.REASONS[found["reason"]] == info.reason
        assert bool(found["flags"] & abi.CLAMPED) == info.clamped
        assert bool(found["flags"] & abi.SLOWED) == info.slowed
        assert (found["planned"], found["refined"]) == (info.planner_ran, info.refiner_ran)
        states.add(info.state)
    assert len(states) == 2


def test_async_steps_are_those_of_the_executor() -> None:
    running = [compare_async(seed) for seed in range(24)]
    assert sum(running) > 1000


def compare_async(seed: int) -> int:
    """One run with any options; the number of steps that were RUNNING."""
    rng, probe = np.random.default_rng(seed), Probe(CONTRACT)
    shared = int(rng.integers(0, CONTRACT.chunk))
    frozen = int(rng.integers(0, shared + 1))
    delays = [int(rng.integers(0, 6)), int(rng.integers(0, 5))]
    both = {
        "refill_at": int(rng.integers(1, 4)),
        "refine_ahead_steps": int(rng.integers(1, 13)) if seed % 2 else 0,
        "max_plan_age_steps": int(rng.integers(4, 16)),
        "chunks_per_plan": int(rng.integers(1, 4)),
    }
    executor = Executor(
        probe,
        CONFIG,
        "async",
        planner_delay_steps=delays[0],
        refiner_delay_steps=delays[1],
        blend=Blend(shared, frozen),
        **both,  # type: ignore[arg-type]
    )
    executor.reset(9, WORDS)
    blend = {"blend": 2 if shared else 0, "blend_steps": shared, "frozen_steps": frozen}
    times = {"max_observation_age_ns": LONG_NS, "engine_timeout_ns": LONG_NS}
    options = Options(**both, **blend, **times)
    ours = AsyncReference(CheckedEngines(probe), Limits(probe), options, 9, WORDS, 0)
    ready: list[int | None] = [None, None]
    running = 0
    for step, (images, state) in enumerate(observations(120, seed)):
        ours.observe(images, state, 0)
        calls = ((0, PLAN_BEGIN, PLAN_END), (1, REFINE_BEGIN, REFINE_END))
        for i, begin, end in calls * (1 if both["refine_ahead_steps"] else 2):
            while True:
                if ready[i] is not None and ready[i] <= step:  # type: ignore[operator]
                    assert ours.work(end)["done"]
                    ready[i] = None
                    if begin == PLAN_BEGIN and delays[0] == 0:
                        break
                if ready[i] is not None or not ours.work(begin)["done"]:
                    break
                ready[i] = step + delays[i]
        found = ours.tick(step)
        action, info = executor.step(images, state)
        np.testing.assert_array_equal(found["action"], action)
        assert found["state"] == int(info.state)
        if found["state"] == 0:
            assert found["plan_age_steps"] == info.plan_age_steps
            running += 1
        assert bool(found["flags"] & abi.CLAMPED) == info.clamped
        assert bool(found["flags"] & abi.SLOWED) == info.slowed
    return running
