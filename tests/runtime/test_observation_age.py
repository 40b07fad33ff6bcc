"""Sync mode holds when the newest observation is too old, as the reference executor does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from libra_edge.binding.policy import Policy
from libra_edge.policy.executor import Executor, State
from tests.runtime import tiny_release as tiny
from tests.runtime.test_sync import TOKENS, reference_config, some_observations, start


@pytest.mark.parametrize("max_age_s", [None, 0.1, 0.25, 1e-9])
def test_an_old_observation_holds_as_in_the_reference(
    release: Path, max_age_s: float | None
) -> None:
    """Cameras that stop, for shorter and longer than the limit: bit for bit."""
    rng = np.random.default_rng(17)
    with Policy(release, max_observation_age_s=max_age_s) as policy, Policy(release) as engines:
        executor = Executor(engines, reference_config(), max_observation_age_s=max_age_s or 0.5)
        for seed in range(4):
            start(policy, seed)
            executor.reset(seed, TOKENS)
            states, stops = [], 0
            for step in range(120):
                stops = stops - 1 if stops else int(rng.integers(0, 24) * (rng.random() < 0.2))
                images, state = (None, None) if stops else tiny.observation(rng)
                if images is not None:
                    policy.observe(images, state)
                action, info = policy.step()
                expected, reference = executor.step(images, state)
                assert action.tobytes() == expected.tobytes(), step
                for name in ("state", "reason", "plan_age_steps", "planner_ran", "refiner_ran"):
                    assert getattr(info, name) == getattr(reference, name), (step, name)
                states.append(info.reason)
            assert states.count("observation is too old") > 3
            assert states.count("") > 10


def test_the_age_of_an_observation_is_told(policy: Policy) -> None:
    start(policy)
    assert policy.step()[1].observation_age_ns == 0
    policy.observe(*some_observations(1)[0])
    found = [policy.step()[1] for _ in range(12)]
    # 20 control steps per second, half a second allowed.
    assert [info.observation_age_ns for info in found] == [50_000_000 * i for i in range(12)]
    assert [info.state for info in found] == [State.RUNNING] * 11 + [State.HOLD]
    assert found[-1].reason == "observation is too old"
