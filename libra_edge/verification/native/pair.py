"""The library and the reference side by side: every call goes to both, and must give the same."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from libra_edge.binding import abi
from libra_edge.verification.native.async_parts import Options
from libra_edge.verification.native.async_reference import AsyncReference
from libra_edge.verification.native.driver import Native
from libra_edge.verification.native.probe import Contract, Floats, Images, Numbers, Probe
from libra_edge.verification.native.reference import CheckedEngines, Outcome, SyncReference

SEED = 5


class Differs(Exception):
    """The library did something else than the reference."""


@dataclass(frozen=True)
class Subject:
    """A probe release, and all that a script needs to know of it.

    vocabulary: word to token.
    """

    library: ctypes.CDLL
    release: Path
    contract: Contract
    vocabulary: Mapping[str, int]

    @cached_property
    def words(self) -> tuple[Numbers, ...]:
        """Instructions int64 [T] of the vocabulary's tokens, its largest among them."""
        rng, tokens = np.random.default_rng(1), sorted(self.vocabulary.values())
        drawn = rng.choice(tokens, (4, self.contract.instruction_length))
        drawn[1:, 0] = tokens[-1], tokens[0], tokens[len(tokens) // 2]
        return tuple(drawn.astype(np.int64))

    @property
    def stranger(self) -> int:
        """The smallest token past the vocabulary."""
        return max(self.vocabulary.values()) + 1

    @cached_property
    def tokens(self) -> frozenset[int]:
        """Every token that there is."""
        return frozenset(self.vocabulary.values())


class Pair:
    """Both, open.

    Args:
        subject: what to open.
        steps: counts steps by mode.
        seed: of the noise.
        max_observation_age_ns: of sync mode; 0 is the default.
    """

    def __init__(
        self,
        subject: Subject,
        steps: Counter[str],
        seed: int = SEED,
        max_observation_age_ns: int = 0,
    ) -> None:
        self.subject, self.contract, self._steps = subject, subject.contract, steps
        self.call = 0
        self._probe = Probe(subject.contract)
        self._sync = SyncReference(self._probe, seed, max_observation_age_ns, subject.tokens)
        self._async: AsyncReference | None = None
        self._native = Native(
            subject.library,
            subject.release,
            subject.contract,
            seed=seed,
            max_observation_age_ns=max_observation_age_ns,
        )

    def close(self) -> None:
        """Destroy the library's side; harmless when repeated."""
        self._native.close()

    @property
    def native(self) -> Native:
        """The library alone."""
        return self._native

    @property
    def fault(self) -> int:
        """The reason of the latched fault; 0 without one."""
        return self._sync.fault if self._async is None else self._async.fault

    def observe(self, images: Images, state: Floats, stamp: int = 0) -> Outcome:
        """le_observe."""
        found = self._native.observe(images, state, stamp)
        mode = self._sync if self._async is None else self._async
        return self._same("le_observe", mode.observe(images, state, stamp), found)

    def set_instruction(self, tokens: Numbers) -> Outcome:
        """le_set_instruction."""
        expected = self._sync.set_instruction(tokens)
        if self._async is not None and expected["status"] == abi.OK:
            self._async.set_instruction(tokens)
        return self._same("le_set_instruction", expected, self._native.set_instruction(tokens))

    def reset(self, seed: int) -> Outcome:
        """le_reset."""
        if self._async is not None:
            self._async.reset(seed)
        return self._same("le_reset", self._sync.reset(seed), self._native.reset(seed))

    def step(self) -> Outcome:
        """le_step."""
        if self._async is not None:
            return self._same("le_step", {"status": abi.INVALID_ARGUMENT}, self._native.step())
        self._steps["sync"] += 1
        return self._same("le_step", self._sync.step(), self._native.step())

    def start(self, options: Options | None = None) -> Outcome:
        """le_start, manual."""
        options, expected = options or Options(), {"status": abi.INVALID_ARGUMENT}
        found = self._native.start(options)
        if self._async is None:
            sync = self._sync
            engines = CheckedEngines(self._probe)
            self._async = AsyncReference(
                engines, sync.limits, options, sync.seed, sync.words, sync.fault
            )
            expected = {"status": abi.OK}
        return self._same("le_start", expected, found)

    def stop(self) -> Outcome:
        """le_stop."""
        if self._async is not None:
            fault, self._async = self._async.fault, None
            self._sync.reset(self._sync.seed)
            self._sync.fault = fault
        return self._same("le_stop", {"status": abi.OK}, self._native.stop())

    def tick(self, now_ns: int) -> Outcome:
        """le_tick."""
        found = self._native.tick(now_ns)
        if self._async is None:
            return self._same("le_tick", {"status": abi.INVALID_ARGUMENT}, found)
        self._steps["async"] += 1
        return self._same("le_tick", self._async.tick(now_ns), found)

    def work(self, piece: int) -> bool:
        """le_work: whether there was something to do."""
        found = self._native.work(piece)
        refused = {"status": abi.INVALID_ARGUMENT}
        expected = refused if self._async is None else self._async.work(piece)
        return bool(self._same(f"le_work {piece}", expected, found).get("done"))

    def set_chunks_per_plan(self, chunks: int) -> Outcome:
        """le_set_chunks_per_plan."""
        found = self._native.set_chunks_per_plan(chunks)
        refused = {"status": abi.INVALID_ARGUMENT}
        expected = refused if self._async is None else self._async.set_chunks_per_plan(chunks)
        return self._same("le_set_chunks_per_plan", expected, found)

    def last_plan(self) -> Outcome:
        """le_last_plan."""
        mode = self._sync if self._async is None else self._async
        return self._same("le_last_plan", mode.last_plan(), self._native.last_plan())

    def fault_text(self) -> Outcome:
        """le_fault_text."""
        expected = {"status": abi.OK, "a sentence": bool(self.fault)}
        return self._same("le_fault_text", expected, self._native.fault_text())

    def stats(self) -> Outcome:
        """le_stats; only in async mode."""
        if self._async is None:
            raise ValueError("statistics are those of async mode")
        counters = self._async.counters
        expected = {"status": abi.OK, **counters.expected()}
        return self._same("le_stats", expected, self._native.stats(counters))

    def same(self, what: str, expected: Outcome, found: Outcome) -> Outcome:
        """Hold a call of another kind against what it should give."""
        return self._same(what, expected, found)

    def _same(self, call: str, expected: Outcome, found: Outcome) -> Outcome:
        self.call += 1
        for name, value in expected.items():
            if words := difference(value, found[name]):
                step = f" of step {expected['step']}" if "step" in expected else ""
                raise Differs(f"call {self.call}, {call}{step}: {name} {words}{_reason(expected)}")
        return expected


class Desk:
    """Hands out pairs: to open one takes longer than most scripts, so that most share theirs."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.steps = subject, Counter[str]()
        self._shared: Pair | None = None

    @contextmanager
    def pair(self, seed: int = SEED) -> Iterator[Pair]:
        """A pair in sync mode at step 0; what it sent last and was told may be of before."""
        if self._shared is None:
            self._shared = Pair(self.subject, self.steps)
        pair = self._shared
        try:
            pair.call = 0
            pair.stop()
            pair.reset(seed)
            yield pair
        except Differs:
            self.close()
            raise

    @contextmanager
    def fresh(self, seed: int = SEED, max_observation_age_ns: int = 0) -> Iterator[Pair]:
        """A pair that has just been opened."""
        pair = Pair(self.subject, self.steps, seed, max_observation_age_ns)
        try:
            yield pair
        finally:
            pair.close()

    def close(self) -> None:
        """Close what is open; harmless when repeated."""
        if self._shared is not None:
            self._shared.close()
        self._shared = None


def difference(expected: Any, found: Any) -> str:
    """How two values differ; nothing where they are the same to the last bit."""
    if not isinstance(expected, np.ndarray):
        return "" if expected == found else f"is {found!r}, the reference says {expected!r}"
    wanted = expected.astype(found.dtype, casting="same_kind")
    bits = f"u{found.dtype.itemsize}"
    places = np.argwhere(wanted.view(bits) != np.ascontiguousarray(found).view(bits))
    if not len(places):
        return ""
    place = tuple(int(i) for i in places[0])
    where = "dimension " + str(place[-1]) if len(place) == 1 else f"at {list(place)}"
    return f"is {found[place]!s} in {where}, the reference says {wanted[place]!s}"


def _reason(expected: Outcome) -> str:
    if "reason" not in expected:
        return ""
    words = abi.REASONS[expected["reason"]] or "running"
    return f" (the reference: {words})"
