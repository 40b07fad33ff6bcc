"""A release onto a robot: looked at, planned, sent, installed beside what runs, then switched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from libra_edge.bundle.verify import Release, open_release, read_signature
from libra_edge.deploy.agent import (
    Agent,
    AgentRefused,
    LineLost,
    bootstrap,
)
from libra_edge.deploy.preflight import (
    Check,
    agent_check,
    machine_checks,
    release_checks,
    require_passed,
    require_releasable,
    robot_rows,
    space_check,
)
from libra_edge.deploy.probe import probe
from libra_edge.deploy.state import (
    SWITCH_TIMEOUT_S,
    RobotState,
    find_agent,
    read_state,
    require_agent,
    wait_until_good,
)
from libra_edge.deploy.stream import Plan, ask_missing, everything, install_stream
from libra_edge.deploy.transport import Line
from libra_edge.errors import IntegrityError, LibraError, StoppedError

# Waits before a broken line is tried again; what arrived is kept, so little is lost.
RECONNECT_S = (1.0, 2.0, 4.0, 8.0, 16.0)
INSTALL_TIMEOUT_S = 900.0  # after the last byte: reading back and hashing on a slow disk
BUSY = "busy"

T = TypeVar("T")
OnStage = Callable[[str], None]
# Called with the bytes to send; its context yields what is called with each piece's size.
Sending = Callable[[int], AbstractContextManager[Callable[[int], None]]]
Condition = Literal["active", "already active", "installed", "already installed", "planned"]


@dataclass(frozen=True)
class FlashRequest:
    """What to do with a release.

    Args:
        release: directory or `.libra` file.
        dry_run: plan and stop; nothing is written on the robot.
        allow_unsigned: let a release without signature through, if the robot's trust file does.
        activate: switch to the release after installing it.
        health_timeout_s: how long the robot waits for `mark-good`; None leaves it to the agent.
        mark_good: say that the robot is well right after the switch.
        wait_s: how long to wait for the robot's own `mark-good`; 0 does not.
    """

    release: Path
    dry_run: bool = False
    allow_unsigned: bool = False
    activate: bool = True
    health_timeout_s: int | None = None
    mark_good: bool = False
    wait_s: float = 0


@dataclass(frozen=True)
class Flashed:
    """What became of it.

    Args:
        condition: of the release on the robot.
        slot: where it is, or would go.
        before: the robot's state as it was found; None: it had no agent.
        after: its state now; None after a dry run.
        plan: what had to be sent.
        sent_bytes: of members that crossed the line, what broken lines lost included.
    """

    robot: str
    root: str
    release: str
    release_id: str
    condition: Condition
    slot: str | None
    before: RobotState | None
    after: RobotState | None
    plan: Plan
    checks: tuple[Check, ...]
    sent_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"plan": {**asdict(self.plan), "send_bytes": self.plan.send_bytes}}


@dataclass
class _Journey:
    """One flash on its way, for whoever stops it."""

    line: Line
    request: FlashRequest
    release: Release
    signature: bytes
    on_stage: OnStage
    sending: Sending
    runs: str = "nothing"
    phase: Literal["looking", "sending", "switching", "switched"] = "looking"
    sent_bytes: int = 0

    @property
    def condition(self) -> str:
        """What the robot runs while this is under way, in a sentence."""
        robot, new = self.line.robot.text, self.release.manifest.name
        if self.phase == "switching":
            return (
                f"The switch is one rename: {robot} runs {new} or still {self.runs}, whole; "
                "`libra-edge status` says which."
            )
        kept = "; what arrived is kept" if self.phase == "sending" else ""
        still = "" if self.phase == "switched" else "still "
        return f"{robot} {still}runs {self.runs}{kept}."


def flash(
    line: Line,
    request: FlashRequest,
    *,
    on_stage: OnStage = lambda _: None,
    sending: Sending = lambda _: nullcontext(lambda _: None),
) -> Flashed:
    """Put a release on a robot; until the last moment the robot runs what it ran.

    Args:
        line: to the robot.
        request: the release and what to do with it.
        on_stage: called with what is going on.
        sending: called when bytes begin to cross.

    Raises:
        LibraError: the release must not run, the robot must not take it, the line broke for good,
            or the agent refuses; each says what the robot runs.
        StoppedError: Ctrl-C.
    """
    on_stage("checking the release")
    release = open_release(request.release)
    require_releasable(release.manifest)
    signature = read_signature(release.path) or b""
    require_signed(release, signature, allow=request.allow_unsigned)
    journey = _Journey(line, request, release, signature, on_stage, sending)
    with _stoppable(journey):
        return _travel(journey)


def examine_robot(line: Line) -> list[Check]:
    """What a robot is and whether it can take a release at all.

    Raises:
        LibraError: it cannot be reached.
    """
    facts = probe(line)
    found = find_agent(line)
    state = found[1] if found else None
    return [
        *robot_rows(facts),
        *machine_checks(facts),
        space_check(0, facts.free_bytes),
        agent_check(state.agent if state else None, state.running if state else "nothing"),
    ]


def require_signed(release: Release, signature: bytes, *, allow: bool) -> None:
    """Refuse a release without a signature unless that was asked for by name.

    Raises:
        IntegrityError: it has none.
    """
    if not signature and not allow:
        raise IntegrityError(
            "release-unsigned",
            f"Release {release.manifest.name!r} has no signature.",
            "Sign it with `libra-edge sign`, or pass --allow-unsigned; the robot's trust file may "
            "still refuse it.",
        )


def _travel(journey: _Journey) -> Flashed:
    line, request, release = journey.line, journey.request, journey.release
    journey.on_stage(f"looking at {line.robot.text}")
    facts = probe(line)
    agent, before = find_agent(line) or (None, None)
    journey.runs = before.running if before else "nothing"
    checks = [*machine_checks(facts), *release_checks(release.manifest, facts)]
    active = before is not None and before.is_active(release.manifest.release_id)
    if active:
        plan = Plan((), 0, None)
    else:
        plan = ask_missing(agent, release) if agent else everything(release, facts.free_bytes)
        checks.append(space_check(plan.needs_bytes, plan.free_bytes))
    done = Flashed(
        line.robot.text,
        str(line.robot.root),
        release.manifest.name,
        release.manifest.release_id,
        "planned",
        before.inactive if before else "a",
        before,
        None,
        plan,
        tuple(checks),
    )
    if active and before:
        after = _settle_health(agent, journey) if agent and not request.dry_run else before
        return replace(done, condition="already active", slot=before.active, after=after)
    if before and not request.activate and before.holds(release.manifest.release_id):
        return replace(done, condition="already installed", after=before)
    require_passed(checks)
    if request.dry_run:
        return done
    installer = agent or bootstrap(line, release)
    slot = _install(installer, plan if agent else ask_missing(installer, release), journey)
    # A robot's first agent was only on its way into the slot.
    agent = agent or require_agent(line)[0]
    done = replace(done, slot=slot, sent_bytes=journey.sent_bytes)
    if not request.activate:
        return replace(done, condition="installed", after=read_state(agent))
    _activate(agent, slot, journey)
    return replace(done, condition="active", after=_settle_health(agent, journey))


def _install(agent: Agent, plan: Plan, journey: _Journey) -> str:
    """Send and install, and return the slot."""
    release = journey.release
    unsigned = [] if journey.signature else ["--allow-unsigned"]

    def install(again: bool) -> str:
        left = ask_missing(agent, release) if again else plan
        count = len(left.parts)
        journey.phase = "sending"
        journey.on_stage(f"sending {count} of {len(release.manifest.members)} members")
        with journey.sending(left.send_bytes) as advance:
            feed = install_stream(release, journey.signature, left, _counted(journey, advance))
            said = agent.ask("install", "-", *unsigned, feed=feed, timeout_s=INSTALL_TIMEOUT_S)
        return str(said.get("slot", ""))

    return _persistently(journey, install)


def _activate(agent: Agent, slot: str, journey: _Journey) -> None:
    """Self-test and switch; where the line breaks, the robot's own state says how that ended."""
    timeout_s = journey.request.health_timeout_s
    health = [] if timeout_s is None else ["--health-timeout-s", str(timeout_s)]

    def activate(again: bool) -> None:
        if again and read_state(agent).is_active(journey.release.manifest.release_id):
            return
        agent.ask("activate", "--slot", slot, *health, timeout_s=SWITCH_TIMEOUT_S)

    journey.on_stage("self-test on the robot, then the switch")
    journey.phase = "switching"
    try:
        _persistently(journey, activate)
    except AgentRefused:
        journey.phase = "looking"
        raise


def _persistently(journey: _Journey, act: Callable[[bool], T]) -> T:
    """Do it again, where it broke off, when the line breaks or an earlier try still ends there."""
    waits = list(RECONNECT_S)
    again = False
    while True:
        try:
            return act(again)
        except (LineLost, AgentRefused) as error:
            if not waits or (isinstance(error, AgentRefused) and error.code != BUSY):
                raise
            again, wait_s = True, waits.pop(0)
            journey.on_stage(f"{error.fact} Again in {wait_s:.0f} s")
            time.sleep(wait_s)


def _counted(journey: _Journey, advance: Callable[[int], None]) -> Callable[[int], None]:
    def on_sent(size_bytes: int) -> None:
        journey.sent_bytes += size_bytes
        advance(size_bytes)

    return on_sent


def _settle_health(agent: Agent, journey: _Journey) -> RobotState:
    """The state after the switch: marked good by us, waited for, or still pending."""
    state = read_state(agent)
    journey.phase, journey.runs = "switched", state.running
    if state.is_good:
        return state
    if journey.request.mark_good:
        agent.ask("mark-good")
        return read_state(agent)
    if journey.request.wait_s:
        journey.on_stage("waiting until the robot is marked good")
        release_id = journey.release.manifest.release_id
        return wait_until_good(agent, release_id, journey.request.wait_s)
    return state


@contextmanager
def _stoppable(journey: _Journey) -> Iterator[None]:
    """Around a flash: whatever ends it says what the robot runs."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(
            "interrupted", "Stopped by Ctrl-C.", f"{journey.condition} Flash again to go on."
        ) from None
    except LibraError as error:
        if journey.runs != "nothing" or journey.phase != "looking":
            error.remedy = f"{journey.condition} {error.remedy}".strip()
        raise
