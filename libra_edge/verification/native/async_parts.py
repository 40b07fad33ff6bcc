"""What async mode is made of: its options, engine calls and chunks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from libra_edge.verification.native import reference
from libra_edge.verification.native.probe import Contract, Floats, Numbers, Tokens
from libra_edge.verification.native.reference import Seen


@dataclass(frozen=True)
class Options:
    """`le_run_options` without threads; 0 is the default, or chooses."""

    chunks_per_plan: int = 0
    refill_at: int = 0
    refine_ahead_steps: int = 0
    max_plan_age_steps: int = 0
    blend: int = 0
    blend_steps: int = 0
    frozen_steps: int = 0
    max_observation_age_ns: int = 0
    engine_timeout_ns: int = 0

    def complete(self, contract: Contract) -> Options:
        """With the defaults that `libra_edge.h` names."""
        return replace(
            self,
            chunks_per_plan=self.chunks_per_plan or contract.chunks_per_plan,
            refill_at=self.refill_at or 1,
            max_plan_age_steps=self.max_plan_age_steps or contract.plan_steps,
            max_observation_age_ns=self.max_observation_age_ns or reference.DEFAULT_AGE_NS,
            engine_timeout_ns=self.engine_timeout_ns or 2_000_000_000,
        )


@dataclass
class Job:
    """An engine call: what it reads, what it is for, and what it came to."""

    active: bool = False
    ran: bool = False
    epoch: int = 0
    since_ns: int | None = None
    step: int = 0
    began: int = 0
    begun: tuple[int, int] = (0, 0)
    plan_step: int = -1
    fault: int = 0
    seen: Seen | None = None
    words: Numbers | None = None
    intent: Tokens | None = None
    noise: Floats | None = None
    actions: Floats | None = None


@dataclass
class Chunk:
    """A chunk in the queue: for the steps from `first` on, the oldest plan in each.

    `seen`: step of the observation that it was made from.
    """

    number: int
    first: int
    seen: int
    actions: Floats
    plan_steps: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The step after its last."""
        return self.first + len(self.actions)
