"""Scripts for async mode, where engine calls are made by hand and the clock is the script's."""

from __future__ import annotations

import numpy as np

from libra_edge.binding import abi
from libra_edge.policy.executor import State
from libra_edge.verification.native import probe
from libra_edge.verification.native.async_parts import Options
from libra_edge.verification.native.pair import Desk
from libra_edge.verification.native.scripts.async_loop import PIECES, Loop, some_options
from libra_edge.verification.native.scripts.observations import Observer
from libra_edge.verification.native.scripts.sync_mode import Script

# So that a clock that crosses none of its limits by itself does so in the script alone.
LONG_NS = 3_600_000_000_000
PATIENT = Options(max_observation_age_ns=LONG_NS, engine_timeout_ns=LONG_NS)


def _patient(**options: int) -> Options:
    times = {"max_observation_age_ns": LONG_NS, "engine_timeout_ns": LONG_NS}
    return Options(**{**times, **options})


def engines_late(desk: Desk) -> None:
    """Engines of any speed, every blend and every other option, from calm to loud."""
    rng = np.random.default_rng(20)
    with desk.pair() as pair:
        chunk, total = desk.subject.contract.chunk, desk.subject.contract.plan_steps
        ticks = min(4 * total + 4, 60)
        for i in range(24):
            slow = (int(rng.integers(0, chunk + 3)), int(rng.integers(0, chunk + 2)))
            loop = Loop(pair, Observer(desk.subject, i), *(slow if i else (0, 0)))
            options = some_options(rng, pair) if i else Options()
            times = {"max_observation_age_ns": LONG_NS, "engine_timeout_ns": LONG_NS}
            loop.start(Options(**{**vars(options), **times}), seed=2**64 - 1 - i)
            loop.run(ticks, loud=i % 3 == 2)
            pair.last_plan()
            pair.stats()


def noise(desk: Desk) -> None:
    """Noise that is all there is of the action, over hundreds of chunks; seeds at both ends."""
    chunk = desk.subject.contract.chunk
    with desk.pair() as pair:
        loop = Loop(pair, Observer(desk.subject, 21))
        for seed in (2**64 - 1, 2**32):
            loop.start(PATIENT, seed)
            for _ in range(min(150 * chunk, 600)):
                loop.once(loop.see.noisy())
        pair.stats()


def nothing_yet(desk: Desk) -> None:
    """HOLD without observation, instruction and plan; calls that belong to the other mode."""
    with desk.fresh() as pair:
        loop = Loop(pair, Observer(desk.subject, 22))
        pair.tick(loop.now_ns)
        pair.work(abi.PLAN_BEGIN)
        pair.set_chunks_per_plan(1)
        pair.start(PATIENT)
        pair.start(PATIENT)
        pair.step()
        pair.last_plan()
        for piece in (*PIECES, 8, 2**32 - 1):
            pair.work(piece)
        loop.tick()
        loop.observe()
        for piece in PIECES:
            pair.work(piece)
        loop.tick()
        pair.set_instruction(np.append(desk.subject.words[0][:-1], desk.subject.stranger))
        loop.tick()
        pair.set_instruction(desk.subject.words[0])
        loop.tick()
        for piece in (abi.PLAN_BEGIN, abi.PLAN_END):
            pair.work(piece)
        loop.tick()
        pair.work(abi.REFINE_BEGIN)
        loop.tick()
        pair.work(abi.REFINE_END)
        loop.run(3)
        for chunks in (0, desk.subject.contract.chunks_per_plan + 1, 2**32 - 1):
            pair.set_chunks_per_plan(chunks)
        pair.stats()
        pair.stop()
        pair.stop()
        pair.step()


def old_observations(desk: Desk) -> None:
    """Time stamps of the past and the future, to the nanosecond; a clock that jumps."""
    limit = int(2.5 * 1e9 / desk.subject.contract.embodiment.control_hz)
    options = Options(max_observation_age_ns=limit, engine_timeout_ns=LONG_NS)
    with desk.pair() as pair:
        loop = Loop(pair, Observer(desk.subject, 23))
        loop.start(options)
        loop.run(2 * desk.subject.contract.chunk)
        for age in (limit, limit + 1, -limit, -limit - 1, 0, limit - 1, -(2**40), 2**40):
            loop.observe(age_ns=age)
            loop.engines()
            loop.tick()
            loop.run(2)
        # Stamped ahead of time, it cannot grow younger than the ticks since it came.
        loop.observe(age_ns=-limit)
        for _ in range(8):
            loop.tick()
        for jump in (10**18, -(10**18), limit, -limit, 1, -1, limit + 1, -loop.period_ns):
            loop.run(2)
            loop.now_ns += jump
            loop.tick()
            loop.tick()
            loop.run(desk.subject.contract.chunk)
        for _ in range(6):
            loop.observe()
            loop.now_ns -= 2 * loop.period_ns
            loop.tick()
        pair.reset(4)
        loop.forget()
        loop.run(4)
        pair.stats()


def slow_engines(desk: Desk) -> None:
    """A call that takes too long holds, from the nanosecond on, until it ends; resets meanwhile."""
    with desk.pair() as pair:
        for begin in (abi.PLAN_BEGIN, abi.REFINE_BEGIN):
            for extra in (0, 1):
                loop = Loop(pair, Observer(desk.subject, 24))
                timeout = 3 * loop.period_ns - extra
                loop.start(Options(max_observation_age_ns=LONG_NS, engine_timeout_ns=timeout))
                loop.run(desk.subject.contract.chunk + 2)
                for i in range(2 * desk.subject.contract.plan_steps + 8):
                    loop.observe()
                    for piece in (abi.PLAN_BEGIN, abi.REFINE_BEGIN):
                        if pair.work(piece) and piece != begin:
                            pair.work(piece + 1)
                    loop.tick()
                    if i == desk.subject.contract.plan_steps + 5:
                        pair.reset(i)
                loop.forget()
                loop.run(desk.subject.contract.plan_steps)
                pair.stats()


def faults(desk: Desk) -> None:
    """Every code: a fault, its latch through `le_stop`, its end by reset; then on as before."""
    rng = np.random.default_rng(25)
    with desk.pair() as pair:
        loop = Loop(pair, Observer(desk.subject, 25))
        for code in probe.HARMS:
            loop.start(PATIENT, seed=code)
            loop.run(int(rng.integers(0, 2 * desk.subject.contract.plan_steps)) % 20)
            place = int(rng.choice((0, 255, 77)))
            for _ in range(2 * desk.subject.contract.plan_steps + 2):
                state = loop.once(loop.see.coded(code, place))["state"]
                pair.fault_text()
                if state == State.FAULT:
                    break
            loop.run(2)
            pair.stats()
            if code % 3 == 0:
                pair.stop()
                pair.step()
                pair.fault_text()
                pair.start(PATIENT)
                loop.run(2)
            pair.reset(code)
            loop.forget()
            pair.fault_text()
            loop.run(desk.subject.contract.chunk)
        images, state = loop.see.calm()
        for value in (np.nan, np.inf, -np.inf):
            state[-1] = value
            pair.observe(images, state, loop.now_ns)
            loop.tick()
            pair.fault_text()
            pair.reset(1)
            loop.run(2)
        pair.stats()


def resets_in_flight(desk: Desk) -> None:
    """A reset while either engine is claimed, has run, or waits: nothing of before it is used."""
    with desk.pair() as pair:
        loop = Loop(pair, Observer(desk.subject, 26))
        loop.start(PATIENT)
        pieces = (abi.PLAN_CLAIM, abi.PLAN_RUN, abi.REFINE_CLAIM, abi.REFINE_RUN)
        for planner in range(3):
            for refiner in range(3):
                loop.run(desk.subject.contract.chunk * 2)
                # Until both have something to do.
                for _ in range(2 * desk.subject.contract.plan_steps):
                    loop.observe()
                    loop.tick()
                for piece in (*pieces[:planner], *pieces[2 : 2 + refiner]):
                    pair.work(piece)
                pair.reset(100 + refiner)
                loop.tick()
                for piece in (abi.PLAN_RUN, abi.REFINE_RUN):
                    pair.work(piece)
                loop.observe()
                loop.forget()
                loop.tick()
                loop.run(desk.subject.contract.chunk)
        pair.stats()


def late_plans(desk: Desk) -> None:
    """Plans that arrive when all, most or none of their steps are past; chunks that do."""
    total, chunk = desk.subject.contract.plan_steps, desk.subject.contract.chunk
    with desk.pair() as pair:
        for late in sorted({0, 1, chunk - 1, chunk, total - chunk, total - 1, total, total + 1}):
            for most in sorted({max(1, late - 1), late or 1, total}):
                loop = Loop(pair, Observer(desk.subject, 27), planner_ticks=min(late, 40))
                loop.start(_patient(max_plan_age_steps=most))
                loop.run(min(2 * total + 4, 40))
                pair.stats()
        for late in sorted({chunk - 1, chunk, chunk + 1}):
            loop = Loop(pair, Observer(desk.subject, 28), refiner_ticks=min(late, 40))
            loop.start(PATIENT)
            loop.run(min(total, 20))
            loop.delays = (0, min(2 * chunk + 1, 40))
            loop.run(min(total + chunk, 40))
            pair.stats()


def plans_of_one_step(desk: Desk) -> None:
    """Two plans of one step: the first counts, whatever the second has seen."""
    with desk.pair() as pair:
        loop = Loop(pair, Observer(desk.subject, 31))
        loop.start(_patient(refill_at=desk.subject.contract.chunks_per_plan))
        for i in range(3 * desk.subject.contract.plan_steps):
            for _ in range(1 + i % 3):
                loop.observe()
                for piece in (abi.PLAN_BEGIN, abi.PLAN_END):
                    pair.work(piece)
            for piece in (abi.REFINE_BEGIN, abi.REFINE_END):
                pair.work(piece)
            loop.tick()
        pair.stats()


def between_claim_and_run(desk: Desk) -> None:
    """What is seen and told after an engine took its work is for the next call."""
    with desk.pair() as pair:
        loop = Loop(pair, Observer(desk.subject, 29))
        loop.start(PATIENT)
        for i in range(3 * desk.subject.contract.plan_steps):
            loop.observe()
            for claim, run, end in ((4, 5, 1), (6, 7, 3)):
                pair.work(claim)
                pair.observe(*loop.see.loud(), loop.now_ns)
                pair.set_instruction(desk.subject.words[i % len(desk.subject.words)])
                pair.observe(*loop.see.calm(), loop.now_ns)
                pair.work(end)
                pair.work(run)
                if i % 3:
                    pair.work(end)
            loop.tick()
            if i % 3 == 0:
                loop.forget()
        pair.stats()


def fewer_chunks(desk: Desk) -> None:
    """The number of chunks to use of each plan, changed as it runs."""
    most = desk.subject.contract.chunks_per_plan
    with desk.pair() as pair:
        loop = Loop(pair, Observer(desk.subject, 30), 1, 1)
        loop.start(_patient(refill_at=most))
        for chunks in (most, 1, most, max(1, most - 1), 1):
            pair.set_chunks_per_plan(chunks)
            loop.run(min(2 * desk.subject.contract.plan_steps, 40))
        pair.reset(3)
        loop.forget()
        loop.run(min(2 * desk.subject.contract.plan_steps, 40))
        pair.stats()


def any_order(seed: int) -> Script:
    """Everything in any order, with any options; a clock that seldom jumps."""

    def run(desk: Desk) -> None:
        rng = np.random.default_rng(seed)
        with desk.pair(seed) as pair:
            for episode in range(5):
                loop = Loop(pair, Observer(desk.subject, seed + episode))
                age = int(rng.integers(1, 8) * loop.period_ns)
                times = {"max_observation_age_ns": age, "engine_timeout_ns": 2 * age}
                loop.start(Options(**{**vars(some_options(rng, pair)), **times}))
                for _ in range(120):
                    _anything(rng, loop)
                    loop.tick()
                pair.stats()

    return run


def _anything(rng: np.random.Generator, loop: Loop) -> None:
    pair = loop.pair
    if rng.random() < 0.7:
        loop.observe(loop.see.any(), int(rng.integers(-2, 4) * loop.period_ns // 2))
    for _ in range(int(rng.integers(0, 12))):
        pair.work(int(rng.choice(PIECES)))
    chance = rng.random()
    if chance < 0.03:
        pair.set_instruction(pair.subject.words[int(rng.integers(len(pair.subject.words)))])
    elif chance < 0.05:
        pair.set_chunks_per_plan(int(rng.integers(1, pair.contract.chunks_per_plan + 1)))
    elif chance < 0.06:
        loop.now_ns += int(rng.integers(-5, 5)) * loop.period_ns
    elif chance < 0.08 or (pair.fault and chance < 0.4):
        pair.reset(int(rng.integers(2**63)))


SCRIPTS: dict[str, Script] = {
    "async: engines of any speed": engines_late,
    "async: noise of hundreds of chunks": noise,
    "async: nothing seen, nothing told": nothing_yet,
    "async: old and future observations": old_observations,
    "async: engines that take too long": slow_engines,
    "async: faults and their latch": faults,
    "async: resets with engines under way": resets_in_flight,
    "async: plans and chunks that come late": late_plans,
    "async: two plans of one step": plans_of_one_step,
    "async: claimed, seen, run": between_claim_and_run,
    "async: fewer chunks of a plan": fewer_chunks,
    "async: anything, 1": any_order(41),
    "async: anything, 2": any_order(42),
    "async: anything, 3": any_order(43),
}
