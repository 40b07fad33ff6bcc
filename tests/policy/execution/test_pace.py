"""When chunks and plans are begun: as late as they can, and never so late that none is left."""

from __future__ import annotations

import numpy as np
import pytest

from libra_edge.policy.execution.intent_buffer import IntentBuffer
from libra_edge.policy.execution.pace import AheadReason, Now, Pace, RefineAhead
from libra_edge.policy.executor import Executor, State
from tests.policy.test_executor import IMAGES, INSTRUCTION, Scripted, plan_for
from tests.tiny import tiny_config

H, D = 3, 3


def pace(ahead: int = 0, chunks: int = 2, **changes: int) -> Pace:
    options = {"refill_at": 1, "shared": 0, "max_plan_age": 99} | changes
    return Pace(H, H * chunks, plans=True, ahead=ahead, **options)


def buffer(plan_step: int, steps: int = 2 * H) -> IntentBuffer:
    found = IntentBuffer(D)
    found.replace(plan_step, np.zeros((steps, D), np.int32), plan_step)
    return found


def test_the_choice_is_the_p99_of_the_last_calls_and_at_most_a_chunk() -> None:
    ahead = RefineAhead(0, 5, 0)
    assert (ahead.steps, ahead.reason) == (5, AheadReason.NOT_MEASURED)
    for steps in (1, 3, 2):
        ahead.add(steps, planner_beside=False)
    assert (ahead.steps, ahead.p99, ahead.reason) == (3, 3, AheadReason.REFINER)
    for _ in range(98):
        ahead.add(1, planner_beside=False)
    assert (len(ahead._calls), ahead.steps) == (101, 2), "one in a hundred may be worse"
    ahead.add(9, planner_beside=False)
    ahead.add(9, planner_beside=False)
    assert (ahead.steps, ahead.p99) == (5, 9)
    assert ahead.reason is AheadReason.SLOWER_THAN_A_CHUNK
    for _ in range(RefineAhead.WINDOW):
        ahead.add(1, planner_beside=False)
    assert ahead.steps == 1, "what is long past does not count"


def test_the_planner_s_interference_is_told() -> None:
    ahead = RefineAhead(0, 5, 0)
    for beside in (True, False) * 4:
        ahead.add(3 if beside else 1, planner_beside=beside)
    assert (ahead.steps, ahead.reason) == (3, AheadReason.PLANNER)


def test_shared_steps_come_on_top_and_a_number_is_a_number() -> None:
    ahead = RefineAhead(0, 5, 2)
    assert ahead.steps == 7
    ahead.add(1, planner_beside=False)
    assert ahead.steps == 3
    asked = RefineAhead(4, 5, 2)
    asked.add(1, planner_beside=False)
    assert (asked.steps, asked.p99, asked.reason) == (4, 1, AheadReason.ASKED)


@pytest.mark.parametrize(
    ("queue_end", "seen", "gap", "waits"),
    [
        (13, 9, 1, True),  # due in this step, and an observation comes in every step
        (13, 10, 1, False),  # it came
        (12, 9, 1, False),  # late
        (13, 9, 2, False),  # nobody knows when the next comes
        (13, 9, None, False),
    ],
)
def test_a_chunk_that_is_due_waits_for_the_observation_of_its_step(
    queue_end: int, seen: int, gap: int | None, waits: bool
) -> None:
    now = Now(10, queue_end, seen, gap)
    assert pace().waits_for_observation(now) == waits, "H steps ahead"
    assert not pace(ahead=H).waits_for_observation(now), "asked for"


def test_an_observation_that_was_waited_for_in_vain_counts() -> None:
    found = pace()
    begun = found.chunk_begins(Now(10, 12, 8, 1), 12, buffer(8), 2 * H)
    found.chunk_ends(11, 10, begun)
    assert found.ahead.p99 == 2
    found = pace()
    begun = found.chunk_begins(Now(10, 12, 10, 2), 12, buffer(8), 2 * H)
    found.chunk_ends(11, 10, begun)
    assert found.ahead.p99 == 2, "it came a step later"
    found = pace()
    begun = found.chunk_begins(Now(10, 12, 9, 1), 12, buffer(8), 2 * H)
    found.chunk_ends(11, 10, begun)
    assert found.ahead.p99 == 1, "it came in time, the plan did not"
    found = pace()
    begun = found.chunk_begins(Now(10, 12, 10, None), 12, buffer(8), 2 * H)
    found.chunk_ends(11, 10, begun)
    assert found.ahead.p99 == 1, "the first observation is not late"


def test_the_planner_makes_way_for_one_refiner_call_and_not_for_a_second() -> None:
    found, intents = pace(chunks=4), buffer(0, 2 * H)
    now = Now(3, 4, 3, 1)
    assert found.next_chunk(now, intents) is not None
    assert not found.plan_due(now, intents, 4 * H), "a chunk is due"
    begun = found.chunk_begins(now, 4, intents, 4 * H)
    assert not found.plan_due(now, intents, 4 * H), "it is under way"
    found.chunk_ends(4, 3, begun)
    later = Now(4, 4, 4, 1)
    assert found.next_chunk(later, buffer(0, 9)) is not None
    assert found.plan_due(later, intents, 4 * H)
    found.plan_begins(4)
    found.plan_ends(4)
    assert not found.plan_due(later, buffer(0, 9), 4 * H), "the next call comes first again"


def test_a_plan_is_asked_for_as_soon_as_it_holds_the_next_chunk() -> None:
    found = pace()
    due = [found.plan_due(Now(step, 6, step, 1), buffer(0), 2 * H) for step in range(1, 6)]
    assert due == [False, False, True, True, True]


def run(planner: int, refiner: int, chunks: int, steps: int = 240) -> tuple[Executor, list[State]]:
    config = tiny_config(bins=1000, chunks_per_plan=chunks)
    engines = Scripted()
    engines.plan = lambda _, __, state: (plan_for(int(state[0]), H * chunks), None)  # type: ignore[method-assign]
    executor = Executor(
        engines, config, "async", planner_delay_steps=planner, refiner_delay_steps=refiner
    )
    executor.reset(0, INSTRUCTION)
    states = []
    for step in range(steps):
        info = executor.step(IMAGES, np.array([step, 0, 0], np.float32))[1]
        states.append(info.state)
        if info.state is State.RUNNING and step > steps // 2:
            # A chunk is H steps long, and begun as late as the refiner allows.
            assert info.seen_steps - 1 <= refiner + H - 1
    return executor, states[steps // 2 :]


@pytest.mark.parametrize("chunks", [2, 3, 5])
@pytest.mark.parametrize("refiner", [0, 1, 2])
@pytest.mark.parametrize("planner", [0, 1, 2])
def test_fresh_and_never_dry_where_planner_and_refiner_have_the_time(
    planner: int, refiner: int, chunks: int
) -> None:
    if planner + refiner > H * (chunks // 2):
        pytest.skip("the planner makes way for the refiner, and then there is no time left")
    executor, states = run(planner, refiner, chunks)
    assert executor.pace.ahead.steps == refiner
    assert set(states) == {State.RUNNING}


@pytest.mark.parametrize(("planner", "refiner"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_one_chunk_per_plan_acts_all_the_same(planner: int, refiner: int) -> None:
    _, states = run(planner, refiner, 1)
    running = states.count(State.RUNNING) / len(states)
    # Plan and chunk one after the other: what is left of H steps is executed.
    assert running >= min(1.0, (H - planner - refiner) / H) - 0.01
