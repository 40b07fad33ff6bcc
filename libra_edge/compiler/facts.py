"""What the manifest says about a compiled policy."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from libra_edge.bundle.manifest import (
    Decision,
    Engines,
    Parity,
    ParityCheck,
    PlannerEngine,
    PolicyFacts,
    RefinerEngine,
    ReleaseFacts,
    RuntimeFacts,
    TensorSpec,
)
from libra_edge.catalog import LayerPrecision, Recipe, Target
from libra_edge.compiler.build import Built
from libra_edge.compiler.cache import tool_versions
from libra_edge.compiler.calibration_data import CalibrationData
from libra_edge.compiler.precision import running
from libra_edge.compiler.quantize import Quantised
from libra_edge.engines.base import BuiltEngine, runs_here
from libra_edge.parity.gates import Check
from libra_edge.policy.checkpoint import Checkpoint
from libra_edge.policy.config import PolicyConfig
from libra_edge.runtime.build import onnxruntime_library, onnxruntime_version
from libra_edge.runtime.native import ABI_VERSION

_LONGEST_TEXT = 4000


def release_facts(
    name: str,
    checkpoint: Checkpoint,
    target: Target,
    recipe: Recipe,
    built: Built,
    checks: Sequence[Check],
    extra: tuple[Decision, ...] = (),
) -> ReleaseFacts:
    """The manifest without its list of members.

    `checks` have all passed, `extra` are decisions beyond the ones every release has.
    """
    return ReleaseFacts(
        name=name,
        policy=_policy(checkpoint.config, checkpoint.sha256),
        embodiment=checkpoint.config.embodiment,
        target=target.name,
        recipe=recipe.name,
        engines=Engines(
            planner=PlannerEngine(member="engines/planner.onnx", **_engine(built.planner)),
            refiner=RefinerEngine(
                member="engines/refiner.onnx", form=built.choice.form, **_engine(built.refiner)
            ),
        ),
        runtime=RuntimeFacts(
            abi_version=ABI_VERSION,
            arch=target.arch,
            glibc=target.glibc,
            onnxruntime_version=onnxruntime_version(onnxruntime_library()),
        ),
        decisions=(*_decisions(target, built), *extra),
        parity=Parity(
            verdict="pass",
            samples=max(check.samples for check in checks),
            checks=tuple(
                ParityCheck(
                    stage=check.stage,
                    metric=check.metric,
                    threshold=check.threshold,
                    verdict="pass" if check.verdict == "pass" else "fail",
                )
                for check in checks
            ),
        ),
        tools=tool_versions(),
    )


def _policy(config: PolicyConfig, checkpoint_sha256: str) -> PolicyFacts:
    return PolicyFacts(
        type=config.type,
        checkpoint_sha256=checkpoint_sha256,
        bins=config.bins,
        chunk=config.chunk,
        chunks_per_plan=config.chunks_per_plan,
        plan_steps=config.plan_steps,
        denoise_steps=config.schedule.denoise_steps,
        prediction_type=config.schedule.prediction_type,
        scheduler=config.schedule.scheduler,
        instruction_length=config.instruction_length,
    )


def _engine(built: BuiltEngine) -> dict[str, Any]:
    return {
        "kind": built.kind,
        "provider": built.provider,
        "session_options": dict(built.session_options),
        "inputs": tuple(TensorSpec(**vars(spec)) for spec in built.inputs),
        "outputs": tuple(TensorSpec(**vars(spec)) for spec in built.outputs),
    }


def _decisions(target: Target, built: Built) -> tuple[Decision, ...]:
    others = ", ".join(entry.kind for entry in target.engines[1:])
    kind = Decision(
        stage="build",
        subject="engine kind",
        choice=built.planner.kind,
        reason=f"preferred by target {target.name}" + (f" over {others}" if others else ""),
    )
    form = Decision(
        stage="build",
        subject="refiner form",
        choice=built.choice.form,
        reason=built.choice.reason,
    )
    if runs_here(target.arch):
        return kind, form
    left_out = Decision(
        stage="check",
        subject="native runtime",
        choice="not run while compiling",
        reason=f"this machine does not run {target.arch}; verify the release on the robot",
    )
    return kind, form, left_out


def calibration_decisions(data: CalibrationData) -> tuple[Decision, ...]:
    """What ranges were found on: the dataset and every frame."""
    frames = " ".join(f"{episode}:{step}" for episode, step in data.frames)
    source = Decision(
        stage="calibrate",
        subject="calibration data",
        choice=f"dataset {data.source}",
        reason=f"{len(data)} frames over tasks, episodes and phases, more where grippers move; "
        f"content {data.sha256}",
    )
    # In pieces, as a text of the manifest is bounded.
    lists = [
        Decision(
            stage="calibrate",
            subject="calibration frames (episode:step)",
            choice=piece,
            reason="stratified choice",
        )
        for piece in textwrap.wrap(frames, _LONGEST_TEXT)
    ]
    return (source, *lists)


def layer_decisions(recipe: Recipe, quantised: Quantised, built: Built) -> tuple[Decision, ...]:
    """What every layer became and why, and what it runs in."""
    runs = running(built.products)
    return tuple(
        Decision(
            stage="quantise",
            subject=name,
            choice=str(precision),
            reason=_why(recipe, quantised, name, precision, runs.get(name)),
        )
        for name, precision in quantised.precisions.items()
    )


def _why(
    recipe: Recipe, quantised: Quantised, name: str, precision: LayerPrecision, runs: str | None
) -> str:
    reason = quantised.reasons.get(name) or f"recipe {recipe.name} for this part"
    found = quantised.ranges.get(name)
    if found is not None and not precision.high:
        reason += f"; input within {found.input_amax:.6g} by {recipe.algorithm}"
    return reason + (f"; runs in {runs}" if runs else "")


def calibration_report(quantised: Quantised, data: CalibrationData) -> dict[str, Any]:
    """Dataset, frames and ranges, for the build report."""
    return {
        "dataset": data.source,
        "content": data.sha256,
        "frames": [list(frame) for frame in data.frames],
        "ranges": {
            name: {
                "input": found.input_amax,
                "output": None if found.output_amax is None else found.output_amax.tolist(),
            }
            for name, found in quantised.ranges.items()
        },
        "precisions": {name: str(p) for name, p in quantised.precisions.items()},
    }
