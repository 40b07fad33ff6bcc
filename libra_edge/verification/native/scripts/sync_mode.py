"""Scripts for sync mode: what a control loop does, and what must not happen to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from libra_edge.policy.executor import State
from libra_edge.verification.native import probe
from libra_edge.verification.native.pair import Desk
from libra_edge.verification.native.scripts.observations import Observer

Script = Callable[[Desk], None]
# Seeds at both ends, in both halves, and of a kind that loses bits on the way.
SEEDS = (0, 1, 2**32 - 1, 2**32, 2**63 + 11, 2**64 - 1)


def calm(desk: Desk) -> None:
    """Plans and chunks end to end, a new instruction in the middle, several seeds."""
    with desk.pair() as pair:
        see = Observer(desk.subject, 1)
        for seed in SEEDS:
            pair.reset(seed)
            pair.set_instruction(desk.subject.words[0])
            for i in range(3 * desk.subject.contract.plan_steps + 1):
                if i == desk.subject.contract.chunk + 1:
                    pair.set_instruction(desk.subject.words[-1])
                pair.observe(*see.calm(), 1000 + i)
                pair.step()
                pair.last_plan()


def waiting(desk: Desk) -> None:
    """Without observation and instruction: HOLD, before and after the first command."""
    contract = desk.subject.contract
    with desk.fresh(seed=2**64 - 1) as pair:
        see = Observer(desk.subject, 2)
        pair.step()
        pair.step()
        pair.last_plan()
        pair.observe(*see.calm(), 2**64 - 1)
        pair.step()
        pair.set_instruction(np.append(desk.subject.words[0][:-1], desk.subject.stranger))
        pair.step()
        pair.set_instruction(desk.subject.words[0])
        for _ in range(contract.plan_steps + 2):
            pair.step()
        pair.reset(3)
        pair.last_plan()
        pair.step()
        pair.set_instruction(np.append(desk.subject.words[1][:-1], -1))
        for _ in range(contract.chunk):
            pair.observe(*see.calm())
            pair.step()
        # Only the observation at a boundary counts; steps between observations do too.
        for i in range(2 * contract.plan_steps):
            if i % 3:
                pair.observe(*see.loud())
            pair.step()


def reset_anywhere(desk: Desk) -> None:
    """A reset after every number of steps of two plans; the chunk numbers begin again."""
    contract, rng = desk.subject.contract, np.random.default_rng(3)
    lengths = list(range(2 * contract.plan_steps + 1))
    if len(lengths) > 16:
        lengths = sorted(rng.choice(lengths, 16, replace=False))
    with desk.pair() as pair:
        see = Observer(desk.subject, 3)
        for length in lengths:
            pair.reset(int(rng.integers(2**63)))
            pair.set_instruction(desk.subject.words[length % len(desk.subject.words)])
            pair.step()
            for _ in range(length):
                pair.observe(*see.calm())
                pair.step()


def loud_actions(desk: Desk) -> None:
    """Actions far out of their limits, and quick changes: clamped, slowed, held and again."""
    with desk.pair() as pair:
        see = Observer(desk.subject, 4)
        pair.set_instruction(desk.subject.words[0])
        for i in range(120):
            pair.observe(*(see.loud() if i % 40 < 30 else see.calm()))
            pair.step()
            if i % 50 == 49:
                pair.reset(i)
                pair.step()


def many_chunks(desk: Desk) -> None:
    """Noise that is all there is of the action, over hundreds of chunks."""
    contract = desk.subject.contract
    count = min(300, 1200 // contract.chunk)
    with desk.fresh(seed=2**64 - 2) as pair:
        see = Observer(desk.subject, 5)
        pair.set_instruction(desk.subject.words[0])
        for i in range(count * contract.chunk):
            if i % contract.chunk == 0:
                pair.observe(*see.noisy())
            pair.step()


def faults(desk: Desk) -> None:
    """Every code in the first, the last and some place: a fault, its latch, its end by reset."""
    contract, rng = desk.subject.contract, np.random.default_rng(6)
    with desk.pair() as pair:
        see = Observer(desk.subject, 6)
        pair.set_instruction(desk.subject.words[0])
        for code in probe.HARMS:
            for place in (0, 255, int(rng.integers(1, 255))):
                pair.reset(code)
                for _ in range(int(rng.integers(0, 2 * contract.plan_steps))):
                    pair.observe(*see.calm())
                    pair.step()
                # Until both engines have run on it.
                for _ in range(contract.plan_steps + 1):
                    pair.observe(*see.coded(code, place))
                    state = pair.step()["state"]
                    pair.fault_text()
                    if state == State.FAULT:
                        break
                pair.observe(*see.calm())
                pair.step()
                pair.step()


def bad_states(desk: Desk) -> None:
    """NaN and infinity in every number of the state latch a fault; the newest fault does not."""
    with desk.pair() as pair:
        see = Observer(desk.subject, 7)
        pair.set_instruction(desk.subject.words[0])
        for value in (np.nan, np.inf, -np.inf):
            for place in {0, len(desk.subject.contract.embodiment.state) - 1}:
                pair.reset(7)
                pair.observe(*see.calm(), 70)
                pair.step()
                images, state = see.calm()
                state[place] = value
                pair.observe(images, state, 71)
                pair.fault_text()
                pair.observe(*see.calm(), 72)
                pair.step()
                pair.step()
        pair.reset(7)
        pair.observe(*see.calm())
        pair.step()


def ages(max_age_ns: int) -> Script:
    """Cameras that stop for longer and shorter than an observation may be old."""

    def run(desk: Desk) -> None:
        rng, period_s = np.random.default_rng(8), 1 / desk.subject.contract.embodiment.control_hz
        limit = int((max_age_ns or 500_000_000) / 1e9 / period_s)
        with desk.fresh(max_observation_age_ns=max_age_ns) if max_age_ns else desk.pair() as pair:
            see = Observer(desk.subject, 8)
            pair.set_instruction(desk.subject.words[0])
            for stop in (0, 1, *(max(0, min(limit, 40) + k) for k in (-1, 0, 1, 2, 3, 9))):
                pair.observe(*see.calm(), int(rng.integers(2**63)))
                for _ in range(stop + 1):
                    pair.step()
            pair.reset(1)
            pair.observe(*see.calm())
            pair.step()

    return run


def exact_ages(desk: Desk) -> None:
    """An observation exactly as old as it may be is fresh; a nanosecond less, and it is not."""
    period_ns = int(3 * 1e9 / desk.subject.contract.embodiment.control_hz)
    for limit in (period_ns, period_ns - 1):
        ages(limit)(desk)


def any_order(seed: int) -> Script:
    """What comes in any order: observations, instructions, steps, resets, async mode between."""

    def run(desk: Desk) -> None:
        rng = np.random.default_rng(seed)
        with desk.pair(seed) as pair:
            see = Observer(desk.subject, seed)
            for _ in range(250):
                chance = rng.random()
                if chance < 0.6:
                    pair.observe(*see.any(), int(rng.integers(2**63)))
                if chance < 0.05:
                    pair.set_instruction(
                        desk.subject.words[int(rng.integers(len(desk.subject.words)))]
                    )
                if 0.05 < chance < 0.07 or (pair.fault and chance < 0.4):
                    pair.reset(int(rng.integers(2**64, dtype=np.uint64)))
                if 0.07 < chance < 0.08:
                    pair.start()
                    pair.tick(int(rng.integers(2**62)))
                    pair.stop()
                pair.step()

    return run


SCRIPTS: dict[str, Script] = {
    "sync: plans and chunks": calm,
    "sync: nothing seen, nothing told": waiting,
    "sync: a reset at every step": reset_anywhere,
    "sync: actions out of limits": loud_actions,
    "sync: noise of hundreds of chunks": many_chunks,
    "sync: faults and their latch": faults,
    "sync: states that are not finite": bad_states,
    "sync: old observations, default": ages(0),
    "sync: old observations, to the nanosecond": exact_ages,
    "sync: anything, 1": any_order(11),
    "sync: anything, 2": any_order(12),
}
