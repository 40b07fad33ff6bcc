"""What the manifest says about a compiled policy."""

from __future__ import annotations

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
from libra_edge.catalog import Recipe, Target
from libra_edge.compiler.build import Built
from libra_edge.compiler.cache import tool_versions
from libra_edge.engines.base import BuiltEngine, runs_here
from libra_edge.parity.gates import Check
from libra_edge.policy.checkpoint import Checkpoint
from libra_edge.policy.config import PolicyConfig
from libra_edge.runtime.build import onnxruntime_library, onnxruntime_version
from libra_edge.runtime.native import ABI_VERSION


def release_facts(
    name: str,
    checkpoint: Checkpoint,
    target: Target,
    recipe: Recipe,
    built: Built,
    checks: Sequence[Check],
) -> ReleaseFacts:
    """The manifest without its list of members; `checks` have all passed."""
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
        decisions=_decisions(target, built),
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
