"""Async mode in virtual time: engines begin and end where the test says, ticks cost nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libra_edge.binding import abi
from libra_edge.binding.abi import PLAN_BEGIN, PLAN_END, REFINE_BEGIN, REFINE_END
from libra_edge.binding.library import load_library
from libra_edge.binding.policy import Policy
from libra_edge.binding.values import RunOptions, TickInfo
from libra_edge.errors import IncompatibleError, InputError, IntegrityError
from libra_edge.policy.config import PolicyConfig
from libra_edge.policy.executor import State
from tests.runtime import native_build
from tests.runtime import tiny_release as tiny
from tests.runtime.tiny_release import H, L, M, T

TOKENS = np.arange(T)
PERIOD_NS = 50_000_000
MANUAL = RunOptions(manual=True)
CALLS = ((0, PLAN_BEGIN, PLAN_END), (1, REFINE_BEGIN, REFINE_END))
Change = Callable[[dict[str, Any]], None]


class Loop:
    """A control loop whose engines take a given number of steps."""

    def __init__(self, policy: Policy, planner_steps: int = 0, refiner_steps: int = 0) -> None:
        self.policy, self.step, self.now_ns = policy, 0, 10**15
        self.delays = (planner_steps, refiner_steps)
        self.ready: list[int | None] = [None, None]
        self.chooses = False

    def start(self, options: RunOptions = MANUAL, seed: int = 5) -> None:
        self.chooses = not options.refine_ahead_steps
        self.policy.stop()
        self.policy.reset(seed, "open the tap")
        self.policy.set_instruction(TOKENS)
        self.policy.start(options)

    def engines(self) -> None:
        """In the order of the reference executor: planner, then refiner as often as it is due."""
        # Once more where the planner makes way for the refiner.
        for engine, begin, end in CALLS * (1 + self.chooses):
            self._end(engine, end)
            while self._begin(engine, begin, end):
                if begin == PLAN_BEGIN:
                    break

    def _begin(self, engine: int, begin: int, end: int) -> bool:
        if self.ready[engine] is not None or not self.policy.work(begin):
            return False
        self.ready[engine] = self.step + self.delays[engine]
        self._end(engine, end)
        return True

    def _end(self, engine: int, end: int) -> None:
        ready = self.ready[engine]
        if ready is not None and ready <= self.step:
            assert self.policy.work(end)
            self.ready[engine] = None

    def once(self, images: Any, state: Any) -> tuple[Any, TickInfo]:
        self.policy.observe(images, state, self.now_ns)
        self.engines()
        return self.tick()

    def tick(self) -> tuple[Any, TickInfo]:
        result = self.policy.tick(self.now_ns)
        self.now_ns += PERIOD_NS
        self.step += 1
        return result

    def run(self, observations: list[Any]) -> list[tuple[Any, TickInfo]]:
        return [self.once(*observation) for observation in observations]


def some_observations(count: int) -> list[Any]:
    rng = np.random.default_rng(count)
    return [tiny.observation(rng) for _ in range(count)]


def config(content: dict[str, Any]) -> PolicyConfig:
    return PolicyConfig.model_validate(
        {
            "embodiment": content["embodiment"],
            **{"bins": tiny.N, "chunk": H, "chunks_per_plan": M},
            **{"instruction_length": T, "vocabulary": 10},
        }
    )


def changed(copy: Callable[[], Path], change: Change) -> tuple[Path, dict[str, Any]]:
    release, content = copy(), tiny.manifest()
    change(content)
    tiny.seal(release, content)
    return release, content


def limited(content: dict[str, Any]) -> None:
    dims = content["embodiment"]["actions"]
    dims[0] |= {"max_step_change": 0.2}
    dims[2] |= {"max_step_change": 0.1, "max_acceleration": 0.05}
    dims[3] |= {"max_acceleration": 0.1}


def steady(policy: Policy, options: RunOptions = MANUAL) -> Loop:
    """A loop that runs: two chunks into the episode."""
    loop = Loop(policy)
    loop.start(options)
    for _, info in loop.run(some_observations(2 * H)):
        assert info.state is State.RUNNING
    return loop


def test_blending_makes_the_switch_between_chunks_smoother(policy: Policy) -> None:
    def roughness(options: RunOptions) -> float:
        loop = Loop(policy, 0, 1)
        loop.start(options)
        actions = np.array([action for action, _ in loop.run(some_observations(10 * L))[2:]])
        return float(np.abs(np.diff(actions, axis=0)).mean())

    linear = {"blend": "linear", "blend_steps": 2, "refill_at": 2, "manual": True}
    linear["refine_ahead_steps"] = H
    plain = RunOptions(manual=True, refine_ahead_steps=H)
    assert roughness(RunOptions(**linear)) < 0.9 * roughness(plain)  # type: ignore[arg-type]


def test_frozen_actions_stay_and_the_rest_follows_the_new_chunk(policy: Policy) -> None:
    observations = some_observations(L)
    outcomes = []
    for options in (
        RunOptions(manual=True, refine_ahead_steps=2, refill_at=2),
        RunOptions(
            manual=True, refill_at=2, blend="freeze", blend_steps=2, frozen_steps=2,
            refine_ahead_steps=2,
        ),
    ):  # fmt: skip
        loop = Loop(policy)
        loop.start(options)
        outcomes.append([action for action, _ in loop.run(observations)[: H + 1]])
    np.testing.assert_array_equal(outcomes[0][:H], outcomes[1][:H])
    assert not np.array_equal(outcomes[0][H], outcomes[1][H])


def test_fewer_chunks_per_plan_at_run_time(policy: Policy) -> None:
    loop = steady(policy)
    loop.run(some_observations(4 * L))
    plans = policy.stats()["plans"]
    policy.set_chunks_per_plan(1)
    outcome = loop.run(some_observations(4 * L))
    assert policy.stats()["plans"] - plans >= 4 * L - 2 * H
    assert max(info.plan_age_steps for _, info in outcome[L:]) <= H
    for chunks in (0, M + 1):
        with pytest.raises(InputError):
            policy.set_chunks_per_plan(chunks)


@pytest.mark.parametrize(
    "options",
    [
        {"chunks_per_plan": M + 1},
        {"refill_at": M + 1},
        {"refine_ahead_steps": L + 1},
        {"blend_steps": 1},
        {"blend": "linear"},
        {"blend": "linear", "blend_steps": H},
        {"blend": "linear", "blend_steps": 1, "frozen_steps": 1},
        {"blend": "freeze", "blend_steps": 1, "frozen_steps": 2},
        {"planner_priority": 100},
        {"poll_s": 2},
    ],
)
def test_refuses_options_that_make_no_sense(policy: Policy, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        policy.start(RunOptions(manual=True, **options))
    with pytest.raises(InputError, match="async-mode-off"):
        policy.tick(0)


def test_calls_of_the_other_mode_are_refused(policy: Policy) -> None:
    for call in (policy.stats, lambda: policy.work(PLAN_BEGIN), lambda: policy.tick(0)):
        with pytest.raises(InputError):
            call()
    policy.start(MANUAL)
    for call in (policy.step, policy.start, lambda: policy.work(9)):
        with pytest.raises(InputError):
            call()
    policy.stop()
    policy.stop()
    assert policy.step()[1].state is State.HOLD
    policy.start()
    with pytest.raises(InputError):
        policy.work(PLAN_BEGIN)


def test_stats_count_what_happened(policy: Policy) -> None:
    loop = steady(policy)
    outcome = loop.run(some_observations(3 * L))
    outcome += [loop.tick() for _ in range(20)]
    stats = policy.stats()
    states = [info.state for _, info in outcome]
    assert stats["ticks"] == 2 * H + len(outcome) == stats["tick_ns"]["count"]
    assert stats["running_ticks"] == 2 * H + states.count(State.RUNNING)
    assert stats["hold_ticks"] == states.count(State.HOLD)
    assert stats["holds"] == 1
    assert sum(stats["hold_reason_ticks"].values()) == stats["hold_ticks"]
    assert stats["planner_ns"]["count"] == stats["plans"] + stats["dropped_plans"]
    assert stats["refiner_ns"]["count"] == stats["chunks"] + stats["dropped_chunks"]
    ages = [info.plan_age_steps for _, info in outcome if info.state is State.RUNNING]
    assert stats["plan_age_steps"]["max"] >= max(ages)
    assert 0 < stats["tick_ns"]["p50"] <= stats["tick_ns"]["p999"] <= stats["tick_ns"]["max"]
    assert sum(stats["tick_ns"]["octaves"]) == stats["ticks"]


def test_real_time_settings_are_tried_and_reported(policy: Policy) -> None:
    cpu = min(os.sched_getaffinity(0))
    policy.start(RunOptions(planner_cpus=frozenset({cpu}), refiner_cpus=frozenset({63})))
    _, info = policy.tick(0)
    assert info.realtime_asked == {"planner_cpus", "refiner_cpus"}
    assert info.realtime_got == {"planner_cpus"}  # no machine of ours has 64 processors


def test_a_library_from_before_async_mode_still_loads(library: Path, tmp_path: Path) -> None:
    """The first releases carry one; a stub with their functions stands for it."""
    first = sorted(set(abi.PROTOTYPES) - abi.ADDED_LATER)
    lines = [f"int {name}(void) {{ return {int(name == 'le_abi_version')}; }}" for name in first]
    source, old = tmp_path / "old.c", tmp_path / "old.so"
    source.write_text("\n".join(lines) + "\n")
    native_build.zig("cc", *native_build.TARGET, "-shared", str(source), "-o", str(old))
    loaded = load_library(old)
    assert not hasattr(loaded, "le_start")
    other = tmp_path / "other.so"
    source.write_text("int le_abi_version(void) { return 1; }\n")
    native_build.zig("cc", *native_build.TARGET, "-shared", str(source), "-o", str(other))
    with pytest.raises(IncompatibleError, match="library-not-loadable"):
        load_library(other)


@pytest.mark.parametrize(
    "key",
    [
        {"on_limit": "explode"},
        {"on_limit": 1},
        {"max_step_change": 0},
        {"max_step_change": -0.5},
        {"max_step_change": 1e-60},
        {"max_acceleration": "fast"},
        {"max_acceleration": 1e300},
    ],
    ids=str,
)
def test_limits_that_make_no_sense_are_refused(
    copy: Callable[[], Path], key: dict[str, Any]
) -> None:
    release, _ = changed(copy, lambda content: content["embodiment"]["actions"][1].update(key))
    with pytest.raises(IntegrityError, match="manifest-invalid"):
        Policy(release)
