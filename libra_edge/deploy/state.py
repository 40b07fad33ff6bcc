"""What a robot holds, as its agent tells it: two slots, which one runs, and whether it is well."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from libra_edge.deploy.agent import SLOTS, Agent, LineLost, NoAgent, agents
from libra_edge.deploy.transport import Line
from libra_edge.errors import LibraError, StoppedError

POLL_S = 2.0
SWITCH_TIMEOUT_S = 900.0  # a self-test on a slow robot takes minutes


@dataclass(frozen=True)
class Slot:
    """One slot. state: installed, verified, active, good or bad."""

    state: str
    manifest_sha256: str
    release: str
    recipe: str
    target: str
    security_epoch: int
    key_id: str | None


@dataclass(frozen=True)
class RobotState:
    """Both slots and which one runs.

    Args:
        active: name of the slot that `current` points to; None before the first release.
        slots: by name; None where nothing is.
        deadline_unix_s: when the robot rolls back unless it is marked good; None: nothing pends.
        agent: the agent's version.
        said: the agent's whole answer.
    """

    active: str | None
    slots: Mapping[str, Slot | None]
    deadline_unix_s: int | None
    agent: str
    said: Mapping[str, Any]

    @property
    def inactive(self) -> str:
        """The slot that the next release goes to."""
        return next(name for name in SLOTS if name != self.active)

    @property
    def running(self) -> str:
        """What runs, in words."""
        slot = self.slots.get(self.active) if self.active else None
        if slot is None:
            return "nothing"
        return f"{slot.release} ({slot.manifest_sha256[:12]}, slot {self.active})"

    def is_active(self, manifest_sha256: str) -> bool:
        """Whether a release runs, by its identity, and was not found to be bad."""
        slot = self.slots.get(self.active) if self.active else None
        return slot is not None and slot.manifest_sha256 == manifest_sha256 and slot.state != "bad"

    def holds(self, manifest_sha256: str) -> bool:
        """Whether a release lies in the slot that does not run, ready to be switched to."""
        slot = self.slots.get(self.inactive)
        ready = slot is not None and slot.state in ("installed", "verified", "good", "active")
        return slot is not None and ready and slot.manifest_sha256 == manifest_sha256

    @property
    def is_good(self) -> bool:
        """Whether what runs was marked good."""
        slot = self.slots.get(self.active) if self.active else None
        return slot is not None and slot.state == "good"


def find_agent(line: Line) -> tuple[Agent, RobotState] | None:
    """The agent of what is active, or where that does not run a slot's; None if there is none.

    Raises:
        LibraError: the line broke, or the agent cannot say what is there.
    """
    for agent in agents(line):
        with suppress(NoAgent):
            return agent, read_state(agent)
    return None


def require_agent(line: Line) -> tuple[Agent, RobotState]:
    """As `find_agent`.

    Raises:
        NoAgent: nothing was ever installed there.
        LibraError: the line broke, or the agent cannot say what is there.
    """
    found = find_agent(line)
    if found is None:
        raise NoAgent(
            "no-agent",
            f"There is no release in {line.robot.root} on {line.robot.text}, so nobody answers.",
            "Flash one with `libra-edge flash`, or name its folder with --root.",
        )
    return found


def read_state(agent: Agent) -> RobotState:
    """Ask an agent for its status.

    Raises:
        LibraError: as `Agent.ask`, or its answer is not that of an agent we know.
    """
    said = agent.ask("status")
    try:
        slots = {name: _slot(said["slots"].get(name)) for name in SLOTS}
        active, deadline = said["active"], said.get("health_deadline_unix_s")
        if active not in (None, *SLOTS) or not (
            deadline is None or (type(deadline) is int and 0 <= deadline < 2**36)
        ):
            raise ValueError(active)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise LibraError(
            "agent-answer",
            f"The agent on {agent.line.robot.text} does not say what its slots hold.",
            "Use the libra-edge of the agent's age, or ask the agent itself.",
        ) from None
    return RobotState(active, slots, deadline, str(said.get("agent_version", "?")), said)


def _slot(said: Mapping[str, Any] | None) -> Slot | None:
    if not said:
        return None
    key = said.get("key_id")
    return Slot(
        str(said["state"]),
        str(said["manifest_sha256"]),
        str(said.get("release", "?")),
        str(said.get("recipe", "?")),
        str(said.get("target", "?")),
        int(said.get("security_epoch", 0)),
        None if key is None else str(key),
    )


def wait_until_good(agent: Agent, manifest_sha256: str, timeout_s: float) -> RobotState:
    """Wait until a release that was activated is marked good on the robot.

    Args:
        agent: of the robot.
        manifest_sha256: the release.
        timeout_s: how long to wait.

    Raises:
        LibraError: the robot rolled back, or nobody marked the release good in time.
    """
    until = time.monotonic() + timeout_s
    while True:
        state = read_state(agent)
        if not state.is_active(manifest_sha256):
            raise LibraError(
                "rolled-back",
                f"{agent.line.robot.text} rolled back: it runs {state.running}.",
                "Ask the robot's service for its log; the release itself passed its self-test.",
            )
        if state.is_good:
            return state
        if time.monotonic() >= until:
            raise LibraError(
                "not-marked-good",
                f"Nobody marked the release good on {agent.line.robot.text} within "
                f"{timeout_s:.0f} s.",
                "The robot rolls back by itself at its deadline. Let its service run "
                "`libra-agent mark-good` once it drives well.",
            )
        time.sleep(min(POLL_S, max(until - time.monotonic(), 0.05)))


def roll_back(line: Line) -> tuple[RobotState, RobotState]:
    """Switch a robot back to the release that it ran before.

    Returns:
        Its state before and after.

    Raises:
        LibraError: there is nothing to go back to, or the robot does not answer.
        StoppedError: Ctrl-C.
    """
    agent, before = require_agent(line)
    try:
        agent.ask("rollback", timeout_s=SWITCH_TIMEOUT_S)
    except LineLost:
        _, after = require_agent(line)  # it says on which side of the rename that ended
        if after.active == before.active:
            raise
        return before, after
    except KeyboardInterrupt:
        raise StoppedError(
            "interrupted",
            "Stopped by Ctrl-C.",
            f"{line.robot.text} runs the release before or still {before.running}, whole; "
            "`libra-edge status` says which.",
        ) from None
    return before, read_state(agent)
