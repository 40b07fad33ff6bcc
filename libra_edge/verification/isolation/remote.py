"""A release in a process of its own, as the comparisons take it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from libra_edge.bundle.compatibility import CPU
from libra_edge.bundle.verify import Release
from libra_edge.data.types import Observation
from libra_edge.errors import CrashedError, IntegrityError, LibraError
from libra_edge.policy.executor import Floats, Images, Instruction, State, Tokens
from libra_edge.verification.isolation.child import MEMORY_BYTES, Child, crashed
from libra_edge.verification.isolation.messages import Array

_SERVICES = "libra_edge.verification.isolation.services"


class RemoteEngines:
    """Planner and refiner over there, as `libra_edge.policy.executor.Engines`."""

    def __init__(self, child: Child) -> None:
        self.child = child

    def plan(
        self, images: Images, instruction: Instruction, state: Floats
    ) -> tuple[Tokens, Floats]:
        """See `libra_edge.policy.executor.Engines.plan`."""
        _, (intent, margin) = self.child.call("plan", images, instruction, state)
        return intent, margin

    def refine(
        self,
        images: Images,
        state: Floats,
        intent: Tokens,
        noise: Floats,
        instruction: Instruction | None = None,
    ) -> Floats:
        """See `libra_edge.policy.executor.Engines.refine`."""
        told = () if instruction is None else (instruction,)
        _, (actions,) = self.child.call("refine", images, state, intent, noise, *told)
        return actions

    def time_calls(
        self, images: Images, instruction: Instruction, state: Floats, intent: Tokens, noise: Floats
    ) -> tuple[float, float]:
        """Milliseconds of one planner and one refiner call over there."""
        told, _ = self.child.call("time_calls", images, instruction, state, intent, noise)
        return float(told["planner"]), float(told["refiner"])


@dataclass(frozen=True)
class RemoteStep:
    """What a step reports."""

    state: State
    planner_ran: bool
    refiner_ran: bool


class RemoteRuntime(RemoteEngines):
    """The release's own runtime over there, as `libra_edge.verification.stepping.Stepper`."""

    def restart(self, seed: int) -> None:
        """Start an episode."""
        self.child.call("restart", seed=str(seed))

    def set_instruction(self, tokens: Instruction) -> None:
        """Say what to do."""
        self.child.call("set_instruction", tokens)

    def observe(self, images: Images, state: Floats) -> None:
        """Hand over an observation."""
        self.child.call("observe", images, state)

    def step(self) -> tuple[Floats, RemoteStep]:
        """One control step."""
        told, (action,) = self.child.call("step")
        record = RemoteStep(
            State(told["state"]), bool(told["planner_ran"]), bool(told["refiner_ran"])
        )
        return action, record


def open_runtime(
    release: Release, time_limit_s: float, engines: Path | None = None
) -> RemoteRuntime:
    """The release through the C ABI; `engines`: built on this machine, in the place of its own.

    Raises:
        CrashedError: it took its process down.
        LibraError: it does not open.
    """
    args = {"release": str(release.path), "engines": None if engines is None else str(engines)}
    return RemoteRuntime(Child(f"{_SERVICES}:RuntimeService", args, time_limit_s=time_limit_s))


def open_engines(release: Release, time_limit_s: float, *, written: bool = False) -> RemoteEngines:
    """The release's engines as Python's ONNX Runtime runs them, or its graphs as written.

    Raises:
        CrashedError: they took their process down, or ONNX Runtime does not take them.
    """
    args = {"release": str(release.path), "written": written}
    engines = release.manifest.engines.by_name.values()
    on_cpu = written or {fact.provider for fact in engines} == {CPU}
    return RemoteEngines(
        Child(
            f"{_SERVICES}:EnginesService",
            args,
            time_limit_s=time_limit_s,
            memory_bytes=MEMORY_BYTES if on_cpu else None,
        )
    )


class RemoteDriver:
    """The release over there as what drives a robot: `libra_edge.data.types.Controller`.

    Args:
        release: the release's directory; its bytes have been verified.
        time_limit_s: of each answer.

    Raises:
        CrashedError: it took its process down, or does not open.
        IntegrityError: its bytes have changed meanwhile.
    """

    def __init__(self, release: Path, time_limit_s: float) -> None:
        args = {"release": str(release)}
        try:
            self._child = Child(f"{_SERVICES}:DriverService", args, time_limit_s=time_limit_s)
        except (CrashedError, IntegrityError):
            raise
        except LibraError as error:
            raise crashed(f"it does not open: {error.fact}", "open") from None

    def reset(self, seed: int, instruction: str) -> None:
        """Begin an episode."""
        self._child.call("reset", seed=str(seed), instruction=instruction)

    def act(self, observation: Observation) -> Floats:
        """The action for this control step.

        Raises:
            CrashedError: it took its process down, or holds the robot.
        """
        told = {"instruction": observation.instruction}
        _, (action,) = self._child.call("act", observation.images, observation.state, **told)
        return action

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close()


class RemoteModel:
    """One ONNX model over there."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def close(self) -> None:
        """End its process."""
        self._child.close()

    def run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """See `libra_edge.engines.session.Session.run`."""
        told, arrays = self._child.call("run", *feeds.values(), names=list(feeds))
        return dict(zip(told["names"], arrays, strict=True))


def open_model(
    content: bytes, provider: str, session_options: dict[str, Any], *, optimize: bool
) -> RemoteModel:
    """A model in a process of its own, which whoever asks for it has to close.

    Raises:
        CrashedError: the model took its process down, or ONNX Runtime does not take it.
    """
    child = Child(f"{_SERVICES}:ModelService", {})
    array = np.frombuffer(content, np.uint8)
    try:
        child.call(
            "load", array, provider=provider, session_options=session_options, optimize=optimize
        )
    except BaseException:
        child.close()
        raise
    return RemoteModel(child)
