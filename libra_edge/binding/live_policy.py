"""A release in async mode as a `Controller`: one tick per period of the wall clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from libra_edge.binding.closing import Closing
from libra_edge.binding.policy import Policy
from libra_edge.binding.recorder import Recorder
from libra_edge.binding.values import Floats, RunOptions, TickInfo
from libra_edge.errors import LibraError
from libra_edge.paths import StrPath
from libra_edge.policy.executor import State

if TYPE_CHECKING:
    from libra_edge.data.types import Observation


class LivePolicy(Closing):
    """The policy as a robot runs it: engines in threads, actions at the control rate.

    `act` waits for the next control period, so a simulated robot sees the latencies of this
    machine. While the policy holds, `act` gives the hold action.

    Args:
        release_dir: the release, as for `Policy`.
        threads: threads of each engine.
        options: how async mode runs.
        record: write the run to this file (`libra_edge.binding.recorder`).

    Raises:
        LibraError: the release is not whole, or not for this machine.
    """

    def __init__(
        self,
        release_dir: StrPath,
        *,
        threads: int = 1,
        options: RunOptions | None = None,
        record: StrPath | None = None,
    ) -> None:
        if record is None:
            self._policy = Policy(release_dir, threads=threads)
        else:
            self._policy = Recorder(release_dir, record, threads=threads)
        self._period_s = 1.0 / self._policy.info.control_hz
        self._instruction: str | None = None
        self._due_s = 0.0
        self._stats: dict[str, Any] = {}
        self._policy.start(options)
        self.tick_info: TickInfo | None = None

    def close(self) -> None:
        """Stop the threads and release the engines; `stats` stays as it is."""
        if not self._stats:
            self._stats = self._policy.stats()
            self._policy.close()

    @property
    def stats(self) -> dict[str, Any]:
        """`Policy.stats`: of the run so far, or of all of it once closed."""
        return self._stats or self._policy.stats()

    def reset(self, seed: int, instruction: str) -> None:
        """Start an episode: step 0, nothing planned, no fault."""
        self._policy.reset(seed, instruction)
        self._instruction = instruction
        self._due_s = time.monotonic()

    def act(self, observation: Observation) -> Floats:
        """Hand over the observation, wait for the next period, and tick.

        Returns:
            The action float32 [D], physical units; `tick_info` says how it came about.

        Raises:
            LibraError: the policy met a fault; it stays so until `reset`.
        """
        if observation.instruction != self._instruction:
            self._policy.tell(observation.instruction)
            self._instruction = observation.instruction
        self._policy.observe(observation.images, observation.state, time.monotonic_ns())
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        # A simulator slower than the robot gets its own pace, not a burst to catch up.
        self._due_s = max(self._due_s, time.monotonic()) + self._period_s
        action, self.tick_info = self._policy.tick(time.monotonic_ns())
        if self.tick_info.state is State.FAULT:
            raise LibraError(
                "policy-fault",
                f"Step {self.tick_info.step}: {self.tick_info.reason}. "
                f"{self._policy.fault_text}".rstrip(),
                "Find the cause, then reset the policy.",
            )
        return action


def summary_rows(stats: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Name, p50, p99 and largest time of tick, planner and refiner, in words."""
    for name, unit, scale in (("tick", "µs", 1e3), ("planner", "ms", 1e6), ("refiner", "ms", 1e6)):
        row = stats[f"{name}_ns"]
        p50, p99, largest = (f"{row[key] / scale:.2f} {unit}" for key in ("p50", "p99", "max"))
        yield name, p50, p99, largest
