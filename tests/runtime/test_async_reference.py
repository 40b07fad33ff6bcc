"""Async mode in virtual time beside the reference executor: the same actions, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libra_edge.binding.policy import Policy
from libra_edge.binding.values import RunOptions
from libra_edge.policy.executor import Blend, Executor, State
from tests.runtime.test_async import (
    TOKENS,
    Change,
    Loop,
    changed,
    config,
    limited,
    some_observations,
)
from tests.runtime.tiny_release import H, L, M

CASES = [
    {},
    {"planner": 1, "refiner": 1},
    {"planner": 2, "refiner": 1, "ahead": 1},
    {"planner": 3, "refiner": 0, "refill": 2},
    {"planner": 1, "refiner": 2, "ahead": 3},
    {"planner": 0, "refiner": 2},
    {"planner": 0, "refiner": 3, "refill": 2},
    {"planner": 0, "refiner": 3, "refill": 2, "steps": 1, "frozen": 1},
    {"planner": 4, "refiner": 1, "refill": 2},
    {"planner": 1, "refiner": 1, "max_age": 3},
    {"planner": 0, "refiner": 0, "chunks": 1},
    {"planner": 1, "refiner": 1, "steps": 2, "refill": 2},
    {"planner": 0, "refiner": 2, "steps": 2, "refill": 2},
    {"planner": 1, "refiner": 1, "steps": 2, "frozen": 1, "refill": 2},
    {"planner": 0, "refiner": 0, "steps": 1, "frozen": 1, "ahead": 2, "refill": 2},
    *(
        {"planner": planner, "refiner": refiner, "ahead": 0, **rest}
        for planner, refiner, rest in (
            (0, 0, {}),
            (1, 0, {}),
            (0, 1, {}),
            (1, 1, {}),
            (2, 1, {"steps": 1}),
            (1, 1, {"chunks": 1}),
            (2, 2, {"refill": 2}),
            (1, 2, {"steps": 2, "frozen": 1}),
        )
    ),
]


def compare_with_the_reference(release: Path, content: dict[str, Any], case: dict[str, int]) -> int:
    """One run of both; the number of steps that were RUNNING."""
    delays = (case.get("planner", 0), case.get("refiner", 0))
    ahead, steps, frozen = case.get("ahead", H), case.get("steps", 0), case.get("frozen", 0)
    both = {
        "refill_at": case.get("refill", 1),
        "refine_ahead_steps": ahead,
        "max_plan_age_steps": case.get("max_age"),
        "chunks_per_plan": case.get("chunks"),
    }
    kind = "freeze" if frozen else "linear" if steps else "none"
    blend = {"blend": kind, "blend_steps": steps, "frozen_steps": frozen}
    observations = some_observations(8 * L)
    with Policy(release) as policy:
        executor = Executor(
            policy,
            config(content),
            "async",
            planner_delay_steps=delays[0],
            refiner_delay_steps=delays[1],
            blend=Blend(steps, frozen),
            **both,  # type: ignore[arg-type]
        )
        executor.reset(5, TOKENS)
        loop = Loop(policy, *delays)
        loop.start(RunOptions(manual=True, **both, **blend))  # type: ignore[arg-type]
        running = 0
        for (images, state), (action, info) in zip(
            observations, loop.run(observations), strict=True
        ):
            expected, reference = executor.step(images, state)
            assert (info.step, info.state) == (reference.step, reference.state), (case, info)
            np.testing.assert_array_equal(action, expected, str(case))
            assert (info.clamped, info.slowed) == (reference.clamped, reference.slowed)
            assert info.reason == reference.reason or info.state is State.HOLD
            if info.state is State.RUNNING:
                assert info.plan_age_steps == reference.plan_age_steps
                assert info.seen_steps == reference.seen_steps
                running += 1
    return running


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("change", [lambda content: None, limited], ids=["free", "limited"])
def test_gives_the_actions_of_the_reference_executor(
    copy: Callable[[], Path], case: dict[str, int], change: Change
) -> None:
    # Fewer would compare nothing.
    assert compare_with_the_reference(*changed(copy, change), case) > L


def test_gives_the_actions_of_the_reference_executor_whatever_the_options(
    copy: Callable[[], Path],
) -> None:
    release, content = changed(copy, limited)
    rng, running, frozen = np.random.default_rng(3), 0, 0
    for _ in range(30):
        steps = int(rng.integers(0, H))
        case = {
            "planner": int(rng.integers(0, H + 2)),
            "refiner": int(rng.integers(0, H + 2)),
            "refill": int(rng.integers(1, M + 1)),
            "ahead": int(rng.integers(0, L + 1)),
            "chunks": int(rng.integers(1, M + 1)),
            "max_age": int(rng.integers(H, L + H)),
            "steps": steps,
            "frozen": int(rng.integers(0, steps + 1)),
        }
        found = compare_with_the_reference(release, content, case)
        running += found
        frozen += found > 0 and case["frozen"] > 0
    assert running > 30 * 8 * L // 4
    assert frozen > 5
