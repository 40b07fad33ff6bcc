"""Which engines are built where: on this machine, or on the robot when a release is installed."""

from __future__ import annotations

from dataclasses import dataclass

from libra_edge.catalog import Target, TargetEngine
from libra_edge.catalog.providers import PROVIDERS
from libra_edge.engines import engine
from libra_edge.engines._plugin import files_of
from libra_edge.engines.base import QdqForm, runs_here
from libra_edge.errors import IncompatibleError, InputError, did_you_mean

# What a release's graphs run on until the robot has built its own engines.
_GRAPHS = TargetEngine(kind="onnxruntime", provider="CPUExecutionProvider")


@dataclass(frozen=True)
class EnginePlan:
    """What is built now, and what on the robot.

    settings: of the engines in the release; on_device: of those the robot builds, or None;
    qdq: how quantised layers are written; measurable: whether the engines that count run here;
    reason: why this kind, in a sentence for the manifest.
    """

    settings: TargetEngine
    on_device: TargetEngine | None
    qdq: QdqForm
    measurable: bool
    reason: str

    @property
    def wanted(self) -> TargetEngine:
        """The engines that the robot is to run."""
        return self.on_device or self.settings


def plan_engines(target: Target, *, kind: str | None = None, on_device: bool = False) -> EnginePlan:
    """Decide for a target.

    Args:
        target: the machine.
        kind: of the engines; None takes what the target prefers.
        on_device: leave the build to the robot, whatever the target says.

    Raises:
        InputError: the target names no engines of that kind, sets an option they do not have, or
            needs a provider whose package is not installed here.
        IncompatibleError: the target runs plain graphs alone, so there is nothing to build on it.
    """
    wanted = target.engines[0] if kind is None else _of_kind(target, kind)
    engine(wanted.kind).require_known_options(wanted, target)
    if wanted.provider in PROVIDERS:
        files_of(PROVIDERS[wanted.provider])  # they go into the release
    others = ", ".join(entry.kind for entry in target.engines[1:])
    preferred = f"preferred by target {target.name}" + (f" over {others}" if others else "")
    preferred = preferred if kind is None else "asked for with --engine"
    if wanted.kind == _GRAPHS.kind:
        if on_device:
            raise IncompatibleError(
                "nothing-to-build-on-device",
                f"Target {target.name!r} runs the plain graphs, which no robot has to build.",
                "Leave out --engines-on-device.",
            )
        return EnginePlan(wanted, None, engine(wanted.kind).qdq, runs_here(target.arch), preferred)
    form = engine(wanted.kind).qdq
    if on_device and engine(wanted.kind).from_program:
        raise IncompatibleError(
            "nothing-to-build-on-device",
            f"Engines of kind {wanted.kind!r} are built from PyTorch programs, which no release "
            "holds.",
            "Leave out --engine: the robot builds from the graphs.",
        )
    if wanted.build == "device" or on_device:
        graphs = [entry for entry in target.engines if entry.kind == _GRAPHS.kind]
        asked = "asked for with --engines-on-device" if on_device else "as its profile says"
        reason = f"{preferred}; built on the robot, {asked}"
        return EnginePlan(graphs[0] if graphs else _GRAPHS, wanted, form, False, reason)
    runs = runs_here(target.arch) and engine(wanted.kind).is_available(wanted.provider)
    return EnginePlan(wanted, None, form, runs, preferred)


def _of_kind(target: Target, kind: str) -> TargetEngine:
    for entry in target.engines:
        if entry.kind == kind:
            return entry
    raise InputError(
        "engine-unsupported",
        f"Target {target.name!r} names no engines of kind {kind!r}.",
        did_you_mean(kind, [entry.kind for entry in target.engines]),
    )
