"""`libra-agent` on a robot: find it or send it, ask it, and read its answers with care."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from libra_edge.bundle.members import AGENT
from libra_edge.bundle.verify import Release
from libra_edge.deploy.robot import Robot
from libra_edge.deploy.transport import Answer, Line, not_reached
from libra_edge.errors import (
    ExitCode,
    IncompatibleError,
    IntegrityError,
    LibraError,
    ParityError,
    UnreachableError,
)

LONGEST_TEXT = 600  # of what a robot says and we repeat
SLOTS = ("a", "b")
# $1 the robot's folder, $2 a name, $3 a size: there whole or not at all.
_RECEIVE = (
    'umask 022; i="$1/incoming"; mkdir -p "$i" && cat > "$i/$2.new" && '
    '[ "$(wc -c < "$i/$2.new")" -eq "$3" ] && chmod 755 "$i/$2.new" && mv -f "$i/$2.new" "$i/$2"'
)


class LineLost(UnreachableError):
    """The line broke while an agent worked: nobody knows yet how that ended."""


class NoAgent(UnreachableError):
    """There is no agent that runs at this place."""


class AgentRefused(LibraError):
    """The agent's own words, with the exit status that its own status means here.

    Args:
        code: the agent's.
        fact: the agent's.
        remedy: the agent's.
        exit_code: of this program.
    """

    def __init__(self, code: str, fact: str, remedy: str, exit_code: ExitCode) -> None:
        super().__init__(code, fact, remedy)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Agent:
    """An agent that can be asked.

    Args:
        line: to the robot.
        path: of the agent there.
    """

    line: Line
    path: PurePosixPath

    def ask(
        self, *words: str, feed: Iterable[bytes] = (), timeout_s: float = 120.0
    ) -> Mapping[str, Any]:
        """Run one command of the agent.

        Args:
            words: the command and its arguments.
            feed: its standard input.
            timeout_s: how long it may work after the input's end.

        Returns:
            Its JSON object.

        Raises:
            LineLost: the line broke before the answer.
            NoAgent: what stands there is no agent, or does not run.
            AgentRefused: the agent says no.
        """
        root = str(self.line.robot.root)
        command = [str(self.path), *words, "--root", root, "--json"]
        answer = self.line.run(command, feed, timeout_s=timeout_s)
        if answer.lost:
            raise _lost(self.line.robot, words[0], answer)
        said = _object(answer.stdout)
        if said is None or not isinstance(said.get("ok"), bool):
            raise _no_agent(self, answer)
        if not said["ok"]:
            raise _refusal(said, answer.status)
        return said


def agents(line: Line) -> Iterator[Agent]:
    """Where an agent may be, in the order of trust: what is active, then the slots."""
    root = line.robot.root
    for folder in (root / "current", *(root / "slots" / name for name in SLOTS)):
        yield Agent(line, folder / AGENT)


def bootstrap(line: Line, release: Release) -> Agent:
    """Send a release's own agent to a robot that has none; what lies there already is used.

    Raises:
        IncompatibleError: the release has no agent, or none that runs there.
        LibraError: the robot's folder cannot be written.
        LineLost: the line broke.
    """
    member = release.manifest.members.get(AGENT)
    if member is None:
        raise IncompatibleError(
            "release-without-agent",
            f"Release {release.manifest.name!r} holds no {AGENT}, and {line.robot.text} has none.",
            "Compile the policy again with this libra-edge: every release now has its agent.",
        )
    root, name = line.robot.root, f"libra-agent-{member.sha256[:16]}"
    agent = Agent(line, root / "incoming" / name)
    try:
        agent.ask("status")
    except NoAgent:
        words = ["sh", "-c", _RECEIVE, "sh", str(root), name, str(member.size_bytes)]
        answer = line.run(words, [release.member(AGENT).read_bytes()])
        if answer.lost:
            raise _lost(line.robot, "sending the agent", answer) from None
        if answer.status:
            raise LibraError(
                "root-not-writable",
                f"{root}/incoming on {line.robot.text} cannot be written: "
                f"{_first_line(answer.stderr)}.",
                "Make the robot's folder once, owned by the user you log in as.",
            ) from None
        try:
            agent.ask("status")
        except NoAgent as error:
            raise IncompatibleError(
                "agent-does-not-run",
                f"The release's agent does not run on {line.robot.text}: {error.fact}",
                f"See that {root} is not mounted noexec, and that the robot's C library is the one "
                "that the release was compiled for.",
            ) from None
    return agent


def _object(stdout: bytes) -> dict[str, Any] | None:
    """The JSON object in what a login shell may have surrounded with words of its own."""
    text = stdout.decode("utf-8", "replace")
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    for start, before in enumerate(f"\n{text}"):
        if before == "\n" and text[start : start + 1] == "{":
            try:
                found, _ = decoder.raw_decode(text, start)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                return found
    return None


def _refuse_constant(word: str) -> None:
    raise ValueError(word)


def _refusal(said: Mapping[str, Any], status: int) -> AgentRefused:
    code, fact, remedy = (_text(said.get(key)) for key in ("code", "fact", "remedy"))
    exit_code = {
        3: ParityError.exit_code if "self-test" in code else IntegrityError.exit_code,
        4: IncompatibleError.exit_code,
    }.get(status, ExitCode.FAILED)
    return AgentRefused(
        code or "agent-failed", fact or "The agent gave no reason.", remedy, exit_code
    )


def _text(value: Any) -> str:
    return value[:LONGEST_TEXT] if isinstance(value, str) else ""


def _lost(robot: Robot, what: str, answer: Answer) -> LineLost:
    error = not_reached(robot, answer.stderr) if answer.stderr else None
    why = error.fact if error else f"{robot.text} no longer answers."
    return LineLost("line-lost", f"The line broke during {what}: {why}", "Run it again.")


def _no_agent(agent: Agent, answer: Answer) -> NoAgent:
    said = _first_line(answer.stderr) or f"status {answer.status}"
    return NoAgent(
        "agent-broken",
        f"{agent.path} on {agent.line.robot.text} does not answer as an agent: {said}.",
        "Flash a release: it brings its own agent.",
    )


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:LONGEST_TEXT]
