"""A robot in the state that someone wants, for Ansible: the same again changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from libra_edge.bundle.verify import open_release
from libra_edge.deploy.flash import FlashRequest, flash
from libra_edge.deploy.state import (
    RobotState,
    find_agent,
    require_agent,
    roll_back,
    wait_until_good,
)
from libra_edge.deploy.transport import Line

WantedState = Literal["active", "installed", "good", "rolled_back"]


@dataclass(frozen=True)
class StateRequest:
    """What is wanted of a robot.

    Args:
        release: the release that it is about.
        state: runs it, holds it, runs it and is well, or does not run it.
        allow_unsigned: let a release without signature through.
        mark_good: mark it good right after the switch.
        health_timeout_s: how long the robot waits for `mark-good`.
        wait_s: how long `good` waits.
        check: say what would change, change nothing.
    """

    release: Path
    state: WantedState = "active"
    allow_unsigned: bool = False
    mark_good: bool = False
    health_timeout_s: int | None = None
    wait_s: float = 0
    check: bool = False


def reach_state(line: Line, request: StateRequest) -> dict[str, Any]:
    """Bring a robot into a state, and say what changed, in Ansible's words.

    Raises:
        LibraError: as `flash`, or the state is not reached in time.
    """
    if request.state in ("active", "installed"):
        return _flashed(line, request)
    release_id = open_release(request.release).manifest.release_id
    if request.state == "good":
        agent, state = require_agent(line)
        if not request.check:
            state = wait_until_good(agent, release_id, request.wait_s)
        return _result(state, state, "good", changed=False)
    return _rolled_back(line, request, release_id)


def _flashed(line: Line, request: StateRequest) -> dict[str, Any]:
    done = flash(
        line,
        FlashRequest(
            request.release,
            dry_run=request.check,
            allow_unsigned=request.allow_unsigned,
            activate=request.state == "active",
            health_timeout_s=request.health_timeout_s,
            mark_good=request.mark_good,
        ),
    )
    changed = done.condition in ("active", "installed", "planned")
    result = _result(done.before, done.after, done.condition, changed=changed)
    if done.condition == "planned" and request.state == "active":
        runs = f"{done.release} ({done.release_id[:12]}, slot {done.slot})"
        result |= {"runs": runs, "diff": _diff(done.before, runs)}
    return result | {"sent_bytes": done.sent_bytes, "slot": done.slot}


def _rolled_back(line: Line, request: StateRequest, release_id: str) -> dict[str, Any]:
    found = find_agent(line)
    if found is None or not found[1].is_active(release_id):
        state = found[1] if found else None
        return _result(state, state, "not active", changed=False)
    if request.check:
        return _result(found[1], None, "planned", changed=True)
    before, after = roll_back(line)
    return _result(before, after, "rolled back", changed=True)


def _result(
    before: RobotState | None, after: RobotState | None, condition: str, *, changed: bool
) -> dict[str, Any]:
    state = after or before
    runs = state.running if state else "nothing"
    return {
        "changed": changed,
        "condition": condition,
        "runs": runs,
        "diff": _diff(before, after.running if after else runs),
    }


def _diff(before: RobotState | None, after: str) -> dict[str, str]:
    was = before.running if before else "nothing"
    return {
        "before": f"runs {was}\n",
        "after": f"runs {after}\n",
        "before_header": "robot",
        "after_header": "robot",
    }
