"""What the C ABI has to do in async mode, call by call, where engine calls are made by hand."""

from __future__ import annotations

import numpy as np

from libra_edge.binding import abi
from libra_edge.policy.execution.intent_buffer import IntentBuffer
from libra_edge.policy.execution.noise import chunk_noise
from libra_edge.policy.execution.pace import Now, Pace
from libra_edge.policy.executor import State
from libra_edge.verification.native import reference
from libra_edge.verification.native.async_parts import Chunk, Job, Options
from libra_edge.verification.native.counters import Counters
from libra_edge.verification.native.probe import Floats, Images, Numbers, Tokens
from libra_edge.verification.native.reference import CheckedEngines, Limits, Outcome, Seen


class AsyncReference:
    """Async mode since `le_start`. Every method gives what the C function of that name gives.

    Args:
        engines, limits: shared with sync mode; the last command is kept.
        options: as handed to `le_start`.
        seed, words, fault: what sync mode had.
    """

    def __init__(
        self,
        engines: CheckedEngines,
        limits: Limits,
        options: Options,
        seed: int,
        words: Numbers | None,
        fault: int,
    ) -> None:
        self._contract, self._engines, self._limits = engines.probe.contract, engines, limits
        self._options, self._words = options.complete(self._contract), words
        self._chunks_per_plan = self._options.chunks_per_plan
        self._planner, self._refiner = Job(), Job()
        self._epoch, self._numbered, self._asked = 0, 0, 0
        self._clock_ns: int | None = None
        self._elapsed_ns, self._arrival_ns = 0, 0
        self._pushed = 0
        self._newest_plan: Tokens | None = None
        self._pace = Pace(
            self._contract.chunk,
            self._contract.plan_steps,
            plans=True,
            ahead=self._options.refine_ahead_steps,
            refill_at=self._options.refill_at,
            shared=self._options.blend_steps,
            max_plan_age=self._options.max_plan_age_steps,
        )
        self.counters = Counters(self._pace.ahead)
        self.reset(seed)
        self.fault = fault

    def reset(self, seed: int) -> Outcome:
        """Step 0 again; engine calls under way are for nothing."""
        self._epoch += 1
        self._seed, self.fault, self._step = seed, 0, 0
        self._intents = IntentBuffer(self._contract.dims)
        self._queue: list[Chunk] = []
        self._queue_end, self._next_chunk, self._plan_end = 0, 0, 0
        self._last_chunk: Chunk | None = None
        self._pace.reset()
        self._seen: Seen | None = None
        self._gap: int | None = None
        self._stamp, self._known = 0, 0
        self.counters.restart()
        return {"status": abi.OK}

    # Observations and instructions.

    def observe(self, images: Images, state: Floats, stamp: int) -> Outcome:
        """The newest observation; a state that is not finite is a fault."""
        if not np.isfinite(state).all():
            self.fault = self.fault or reference.STATE_NOT_FINITE
            return {"status": abi.NOT_FINITE}
        self._numbered += 1
        self._gap = None if self._seen is None else self._step - self._seen.step
        self._seen = Seen(images.copy(), state.copy(), self._step, self._numbered)
        self._stamp = stamp
        return {"status": abi.OK}

    def set_instruction(self, tokens: Numbers) -> None:
        """Words for the next planner call."""
        self._words = tokens.copy()

    def set_chunks_per_plan(self, chunks: int) -> Outcome:
        """How much of each plan is used, from the next one on."""
        if not 1 <= chunks <= self._contract.chunks_per_plan:
            return {"status": abi.INVALID_ARGUMENT}
        self._chunks_per_plan = chunks
        return {"status": abi.OK}

    # Engine calls.

    def work(self, piece: int) -> Outcome:
        """One piece of the threads' work."""
        pieces = {
            abi.PLAN_BEGIN: lambda: self._claim_plan() and self._run_plan(),
            abi.PLAN_CLAIM: self._claim_plan,
            abi.PLAN_RUN: self._run_plan,
            abi.PLAN_END: self._end_plan,
            abi.REFINE_BEGIN: lambda: self._claim_chunk() and self._run_chunk(),
            abi.REFINE_CLAIM: self._claim_chunk,
            abi.REFINE_RUN: self._run_chunk,
            abi.REFINE_END: self._end_chunk,
        }
        if piece not in pieces:
            return {"status": abi.INVALID_ARGUMENT}
        return {"status": abi.OK, "done": int(pieces[piece]())}

    def _ready(self) -> bool:
        return not self.fault and self._seen is not None and self._words is not None

    def _claim_plan(self) -> bool:
        if self._planner.active or not self._ready() or self._seen is None:
            return False
        used = self._chunks_per_plan * self._contract.chunk
        if self._seen.number <= self._asked:
            return False
        if not self._pace.plan_due(self._now(self._seen), self._intents, used):
            return False
        self._pace.plan_begins(self._step)
        self._asked = self._seen.number
        self._planner = Job(
            active=True,
            epoch=self._epoch,
            since_ns=self._elapsed_ns,
            step=self._seen.step,
            seen=self._seen,
            words=self._words,
        )
        return True

    def _now(self, seen: Seen) -> Now:
        return Now(self._step, self._queue_end, seen.step, self._gap)

    def _run_plan(self) -> bool:
        job = self._planner
        if not job.active or job.seen is None or job.words is None:
            return False
        job.fault = self._engines.plan(job.seen, job.words)
        job.intent = self._newest_plan = self._engines.newest
        job.ran = True
        self.counters.planner_calls += 1
        return True

    def _end_plan(self) -> bool:
        job = self._planner
        if not job.active or not job.ran or job.intent is None:
            return False
        job.active, job.since_ns = False, None
        self._pace.plan_ends(self._step)
        if job.epoch != self._epoch:
            self.counters.add("dropped_plans")
        elif job.fault:
            self.fault = self.fault or job.fault
        else:
            self._take_plan(job.step, job.intent)
        return True

    def _take_plan(self, plan_step: int, intent: Tokens) -> None:
        used = intent[: self._chunks_per_plan * self._contract.chunk]
        old = self._step > plan_step + self._options.max_plan_age_steps
        if old or not self._intents.replace(plan_step, used, self._step):
            self.counters.add("dropped_plans")
            return
        self._plan_end = self._intents.end
        self.counters.add("plans")

    def _claim_chunk(self) -> bool:
        if self._refiner.active or not self._ready() or self._seen is None:
            return False
        now, chunk = self._now(self._seen), self._contract.chunk
        first = self._pace.next_chunk(now, self._intents)
        if first is None or self._intents.plan_step is None:
            return False
        if self._pace.waits_for_observation(now):
            return False
        self._refiner = Job(
            active=True,
            epoch=self._epoch,
            since_ns=self._elapsed_ns,
            step=first,
            began=self._step,
            begun=self._pace.chunk_begins(now, first, self._intents, self._chunks_per_plan * chunk),
            plan_step=self._intents.plan_step,
            seen=self._seen,
            intent=self._intents.take(first, chunk),
            noise=chunk_noise(self._seed, self._next_chunk, (chunk, self._contract.dims)),
        )
        return True

    def _run_chunk(self) -> bool:
        job = self._refiner
        if not job.active or job.seen is None or job.intent is None or job.noise is None:
            return False
        job.fault, job.actions = self._engines.refine(job.seen, job.intent, job.noise)
        job.ran = True
        self.counters.refiner_calls += 1
        return True

    def _end_chunk(self) -> bool:
        job = self._refiner
        if not job.active or not job.ran or job.actions is None:
            return False
        job.active, job.since_ns = False, None
        if job.epoch == self._epoch and not job.fault:
            self._take_chunk(job, job.actions)
            return True
        self._pace.chunk_dropped()
        if job.epoch == self._epoch:
            self.fault = self.fault or job.fault
        return True

    def _take_chunk(self, job: Job, actions: Floats) -> None:
        number = self._next_chunk
        self._next_chunk += 1
        self._pace.chunk_ends(self._step, job.began, job.begun)
        if job.step + len(actions) <= self._step:
            self.counters.add("dropped_chunks")
            return
        seen = self._step if job.seen is None else job.seen.step
        chunk = Chunk(number, job.step, seen, actions.copy(), [job.plan_step] * len(actions))
        self._blend(chunk)
        self._last_chunk, self._queue_end = chunk, chunk.end
        self._queue.append(chunk)
        self._pushed += 1
        self.counters.add("chunks")

    def _blend(self, chunk: Chunk) -> None:
        common, old = self._queue_end - chunk.first, self._last_chunk
        if common <= 0 or not self._options.blend or old is None:
            return
        frozen = min(common, max(self._step - chunk.first, self._options.frozen_steps))
        for i in range(common):
            weight = np.float32(max(0, i - frozen + 1)) / np.float32(common - frozen + 1)
            before = old.actions[chunk.first + i - old.first]
            chunk.actions[i] = before + weight * (chunk.actions[i] - before)
            planned = old.plan_steps[chunk.first + i - old.first]
            chunk.plan_steps[i] = min(chunk.plan_steps[i], planned)

    # The control loop.

    def tick(self, now_ns: int) -> Outcome:
        """One control step."""
        step = self._step
        if self._clock_ns is not None:
            self._elapsed_ns += max(0, now_ns - self._clock_ns)
        self._clock_ns = now_ns
        while self._queue and (
            self._queue[0].end <= step or (len(self._queue) > 1 and self._queue[1].first <= step)
        ):
            self._queue.pop(0)
        end = self._queue[-1].end if self._queue else step
        age_ns = self._observation_age(now_ns)
        info = reference.no_masks() | {"plan_step": -1, "plan_age_steps": -1, "seen_steps": 0}
        hold, action = self._hold(age_ns), None
        current = self._queue[0] if self._queue and self._queue[0].first <= step else None
        if not self.fault and not hold and current is None:
            planned = end > step or self._plan_end >= step + self._contract.chunk
            late = planned or self._refiner.since_ns is not None
            hold = reference.UNDERRUN if late else reference.NO_PLAN
        if not self.fault and not hold and current is not None:
            action, hold = self._send(current, info)
        if action is None:
            action, flag = self._limits.hold()
            info["flags"] |= flag
        state = State.FAULT if self.fault else State.HOLD if hold else State.RUNNING
        info |= {
            "status": abi.OK,
            "action": action,
            "state": int(state),
            "reason": self.fault or hold,
            "step": step,
            "observation_timestamp_ns": self._stamp,
            "observation_age_ns": age_ns,
            "queue_steps": max(0, end - step - 1),
            "realtime_asked": 0,
            "realtime_got": 0,
            "chunks_seen": self._pushed,
        }
        self._step += 1
        self.counters.count(info)
        return info

    def _send(self, chunk: Chunk, info: Outcome) -> tuple[Floats | None, int]:
        row = self._step - chunk.first
        age = self._step - chunk.plan_steps[row]
        if age > self._options.max_plan_age_steps:
            return None, reference.NO_PLAN
        action = self._limits.send(chunk.actions[row], self._seen, info)
        if action is None:
            self.fault = reference.OUT_OF_LIMITS
        else:
            info |= {"chunk": chunk.number, "plan_step": chunk.plan_steps[row]}
            info |= {"plan_age_steps": age, "seen_steps": self._step - chunk.seen + 1}
        return action, 0

    def _observation_age(self, now_ns: int) -> int:
        if self._seen is None:
            return 0
        if self._seen.number != self._known:
            self._known, self._arrival_ns = self._seen.number, self._elapsed_ns
        return max(abs(now_ns - self._stamp), self._elapsed_ns - self._arrival_ns)

    def _hold(self, age_ns: int) -> int:
        if self._seen is None:
            return reference.NO_OBSERVATION
        if self._words is None:
            return reference.NO_INSTRUCTION
        for job in (self._planner, self._refiner):
            began = self._elapsed_ns if job.since_ns is None else job.since_ns
            if self._elapsed_ns - began > self._options.engine_timeout_ns:
                return reference.ENGINE_TIMEOUT
        old = age_ns > self._options.max_observation_age_ns
        return reference.OBSERVATION_TOO_OLD if old else 0

    def last_plan(self) -> Outcome:
        """The intents of the newest planner call."""
        if self._newest_plan is None:
            return {"status": abi.INVALID_ARGUMENT}
        return {"status": abi.OK, "intent": self._newest_plan}
