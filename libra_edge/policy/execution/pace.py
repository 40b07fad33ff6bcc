"""When the next chunk and the next plan are begun in async mode.

`src/control/pace.cc` of the runtime decides the same in whole control steps.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum

from libra_edge.policy.execution.intent_buffer import IntentBuffer


class AheadReason(IntEnum):
    """Why `refine_ahead_steps` is what it is; the numbers are those of the C ABI."""

    ASKED = 1
    NOT_MEASURED = 2
    REFINER = 3
    PLANNER = 4
    SLOWER_THAN_A_CHUNK = 5


class RefineAhead:
    """How many actions are left when the next chunk is begun.

    Asked for, or as few as 99 of the last 100 refiner calls needed to be back in time; the longest
    of them while there are fewer, H before the first and never more than that; and besides, those
    that it shares with the next.

    Args:
        asked: 0 chooses.
        chunk: H.
        shared: steps that successive chunks share.
    """

    WINDOW = 128

    def __init__(self, asked: int, chunk: int, shared: int) -> None:
        self._asked, self._chunk, self._shared = asked, chunk, shared
        self._calls: deque[tuple[int, bool]] = deque(maxlen=self.WINDOW)
        # Steps that a refiner call takes at most, but for one in a hundred; and one alone.
        self.p99 = self._p99_alone = 0

    @property
    def automatic(self) -> bool:
        """Whether nobody asked for a number."""
        return self._asked == 0

    def add(self, steps: int, planner_beside: bool) -> None:
        """Take in a refiner call: what it took, and whether the planner ran meanwhile."""
        self._calls.append((steps, planner_beside))
        self.p99 = _p99([steps for steps, _ in self._calls])
        self._p99_alone = _p99([steps for steps, beside in self._calls if not beside])

    @property
    def steps(self) -> int:
        """The choice."""
        if not self.automatic:
            return self._asked
        return (min(self.p99, self._chunk) if self._calls else self._chunk) + self._shared

    @property
    def reason(self) -> AheadReason:
        """Why it is that."""
        if not self.automatic:
            return AheadReason.ASKED
        if not self._calls:
            return AheadReason.NOT_MEASURED
        if self.p99 > self._chunk:
            return AheadReason.SLOWER_THAN_A_CHUNK
        return AheadReason.PLANNER if self._p99_alone < self.p99 else AheadReason.REFINER


def _p99(steps: list[int]) -> int:
    return sorted(steps)[len(steps) - len(steps) // 100 - 1] if steps else 0


@dataclass(frozen=True)
class Now:
    """The moment of a decision: the step, the one after the queue, and the newest observation.

    `gap`: control steps between the newest two observations; None before there are two.
    """

    step: int
    queue_end: int
    seen: int
    gap: int | None

    @property
    def queued(self) -> int:
        """Actions left."""
        return max(0, self.queue_end - self.step)

    @property
    def end(self) -> int:
        """The first step without an action."""
        return max(self.queue_end, self.step)


class Pace:
    """Decides, from what engine calls took in control steps.

    Args:
        chunk: H.
        plan_steps: L.
        plans: whether there is a planner.
        ahead: `refine_ahead_steps`; 0 chooses, and then engines also wait for each other.
        refill_at: chunks left at which the planner is asked.
        shared: steps that successive chunks share.
        max_plan_age: of an action, in steps.
    """

    def __init__(
        self,
        chunk: int,
        plan_steps: int,
        *,
        plans: bool,
        ahead: int,
        refill_at: int,
        shared: int,
        max_plan_age: int,
    ) -> None:
        self._chunk, self._plan_steps, self._plans = chunk, plan_steps, plans
        self._refill, self._shared, self._max_age = refill_at * chunk, shared, max_plan_age
        # Engines are no faster after a reset than before.
        self.ahead = RefineAhead(ahead, chunk, shared)
        self._plan_lasted = (0, 0)
        self._plans_begun = self._plans_ended = self._refines_begun = self._refines_ended = 0
        self.reset()

    def reset(self, *, idle: bool = False) -> None:
        """Step 0 again; `idle`: the calls under way will not end."""
        if idle:
            self._plans_ended, self._refines_ended = self._plans_begun, self._refines_begun
        self._lasted, self._ended_at = (0, 0), 0
        self._plan_began: int | None = None
        self._coming_end = 0  # of the chunk under way
        self._yields_to = 0  # the refiner call that the planner makes way for, from 1

    def next_chunk(self, now: Now, intents: IntentBuffer) -> int | None:
        """The first step of the chunk that can be begun now; None where none can.

        It begins where the queue ends, but not before the refiner can be back. Where fewer steps
        are planned it has the last H of them, if one is left by then; where a number of steps was
        asked for, no queued action is given up for that, and else it has to add to the queue.
        """
        if now.queued > self.ahead.steps:
            return None
        joins = now.queue_end - self._shared if now.queued > self._shared else now.step
        back = now.step + self._lead(now.step)
        first = max(joins, back)
        if not self._plans:
            return first
        if intents.plan_step is None:
            return None
        last = max(0, intents.end - self._chunk)
        adds = intents.end >= now.queue_end + -(-self._chunk // 8)
        worth_it = now.queued == 0 or (adds if self.ahead.automatic else last >= joins)
        if last < first and intents.end > back and worth_it:
            first = last
        age = max(first, now.step) - intents.plan_step
        return first if age <= self._max_age and intents.left(first) >= self._chunk else None

    def _lead(self, step: int) -> int:
        """Steps that the refiner is expected to take.

        One slow call says nothing yet about the next, so the shorter of the last two counts, and
        that no longer than a plan.
        """
        return min(self._lasted) if step <= self._ended_at + self._plan_steps else 0

    def waits_for_observation(self, now: Now) -> bool:
        """Whether a chunk that can be begun has to wait for the observation of this step.

        Only where one came in the step before, and in the step in which the chunk is due alone.
        """
        comes = self.ahead.automatic and now.gap is not None and now.gap <= 1
        return comes and now.queue_end == now.step + self.ahead.steps and now.seen < now.step

    def chunk_begins(
        self, now: Now, first: int, intents: IntentBuffer, used: int
    ) -> tuple[int, int]:
        """What `chunk_ends` has to know: since when it was due, and planner calls ended by now.

        `first`: what `next_chunk` gave. A step in which no observation came counts as one that the
        call took: it was waited for.
        """
        came = now.seen + 1 == now.step or (now.seen == now.step and now.gap in (None, 0, 1))
        missed = now.queue_end + 1 == now.step + self.ahead.steps and not came
        due = now.step - (self.ahead.automatic and missed)
        self._refines_begun += 1
        idle = self._plans_begun == self._plans_ended
        if self._plans and idle and self._yields_to == 0 and self._needs_plan(now, intents, used):
            self._yields_to = self._refines_begun
        self._coming_end = first + self._chunk
        return due, self._plans_ended

    def chunk_dropped(self) -> None:
        """The call under way ended; what it took is for nothing."""
        self._refines_ended += 1
        self._coming_end = 0

    def chunk_ends(self, step: int, began: int, begun: tuple[int, int]) -> None:
        """The call under way ended in step `step`, and began in `began`, as `begun` tells."""
        due, plans_ended = begun
        self._refines_ended += 1
        self._coming_end = 0
        self.ahead.add(step - due, self._plans_begun != plans_ended)
        self._lasted, self._ended_at = (step - began, self._lasted[0]), step

    def plan_due(self, now: Now, intents: IntentBuffer, used: int) -> bool:
        """Whether the planner is to be asked; `used`: steps to use of its plan.

        Where a number of steps was asked for, when `refill_at` chunks are left. Else also when the
        next chunk is not planned, as soon as a plan of the newest observation would hold it; and a
        refiner call that is due or under way comes first, but not a second one.
        """
        if not self.ahead.automatic:
            return intents.left(now.step) <= self._refill
        return self._needs_plan(now, intents, used) and not self._yields(now, intents)

    def _needs_plan(self, now: Now, intents: IntentBuffer, used: int) -> bool:
        """Whether the chunks that come due before a plan would be there are not planned.

        The next one in any case; more of them as far as a plan holds them.
        """
        end = max(now.end, self._coming_end)
        late = self._there(now) - end
        most = max(0, used // self._chunk - 2)
        more = min(max(0, -(-late // self._chunk)), most)
        planned = intents.end >= end + (1 + more) * self._chunk
        planned = planned and intents.plan_step is not None
        planned = planned and end - (intents.plan_step or 0) <= self._max_age
        if planned and intents.left(now.step) > self._refill:
            return False
        return used <= self._chunk or now.seen + used >= end + self._chunk

    def _yields(self, now: Now, intents: IntentBuffer) -> bool:
        if 0 < self._yields_to <= self._refines_ended:
            return False
        if self._refines_begun != self._refines_ended:
            # Where the queue would run dry meanwhile it does not make way.
            return self._there(now) <= max(now.end, self._coming_end)
        return self.next_chunk(now, intents) is not None

    def _there(self, now: Now) -> int:
        """When a chunk of a plan that is asked for now could be begun so as to be in time."""
        return now.step + max(self._plan_lasted) + self.ahead.steps

    def plan_begins(self, step: int) -> None:
        """The planner is asked."""
        self._plans_begun += 1
        self._plan_began = step
        self._yields_to = 0

    def plan_ends(self, step: int) -> None:
        """The planner's call ended; one that a reset fell into tells nothing."""
        self._plans_ended += 1
        if self._plan_began is not None:
            self._plan_lasted = (step - self._plan_began, self._plan_lasted[0])
        self._plan_began = None
