"""What the manifest says about a compiled policy."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from libra_edge.binding.abi import ABI_VERSION
from libra_edge.bundle.manifest import (
    Compiled,
    Decision,
    DeviceNeeds,
    Engines,
    Layer,
    Parity,
    ParityCheck,
    PlannerEngine,
    PolicyFacts,
    Provision,
    RefinerEngine,
    ReleaseFacts,
    RuntimeFacts,
    TensorSpec,
    Work,
    overall,
)
from libra_edge.catalog import LayerPrecision, Recipe, Target
from libra_edge.compiler.cache import tool_versions
from libra_edge.compiler.engines.build import Built
from libra_edge.compiler.engines.plan import EnginePlan
from libra_edge.compiler.engines.read_back import running, shown_name
from libra_edge.compiler.quantization.calibration_data import CalibrationData
from libra_edge.compiler.quantization.linear import Ranges
from libra_edge.compiler.quantization.quantize import Quantized
from libra_edge.compiler.search.search import Found
from libra_edge.compiler.work.count import PolicyWork, count
from libra_edge.engines import engine
from libra_edge.engines.base import BuiltEngine, Product, runs_here
from libra_edge.parity.gates import ENGINE, FUSED, RUNTIME, Check, not_measured
from libra_edge.policy.checkpoint import Checkpoint
from libra_edge.policy.config import PolicyConfig
from libra_edge.runtime.build import onnxruntime_library, onnxruntime_version

_LONGEST_TEXT = 4000


def release_facts(
    name: str,
    checkpoint: Checkpoint,
    target: Target,
    recipe: Recipe,
    built: Built,
    checks: Sequence[Check],
    extra: tuple[Decision, ...] = (),
    quantized: Quantized | None = None,
) -> ReleaseFacts:
    """The manifest without its list of members.

    `checks` have all passed, `extra` are decisions beyond the ones every release has, `quantised`
    is what a recipe with calibration, and perhaps a search, made of the policy.
    """
    precisions = quantized.precisions if quantized else None
    work = count(checkpoint.config, recipe, built.plan.qdq, precisions)
    return ReleaseFacts(
        name=name,
        policy=policy_facts(checkpoint.config, checkpoint.sha256),
        embodiment=checkpoint.config.embodiment,
        target=target.name,
        recipe=recipe.name,
        engines=Engines(
            planner=PlannerEngine(
                member=_member("planner", built.planner), **_engine(built.planner, work.planner)
            ),
            refiner=RefinerEngine(
                member=_member("refiner", built.refiner),
                form=built.choice.form,
                **_engine(built.refiner, work.refiner),
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
            verdict=overall([check.verdict for check in checks]),
            samples=max(check.samples for check in checks),
            checks=tuple(
                ParityCheck(
                    stage=check.stage,
                    metric=check.metric,
                    threshold=check.threshold if isfinite(check.threshold) else None,
                    verdict=check.verdict,
                )
                for check in checks
            ),
        ),
        tools={**tool_versions(), **engine(built.planner.kind).tools()},
        device=_device(target, built, work),
        provision=_provision(built),
        random_weights=checkpoint.random_weights,
        layers=_layers(built.products),
    )


def unmeasured(target: Target, built: Built) -> list[Check]:
    """What could not be held against the policy on this machine; none of it counts as passed."""
    plan = built.plan
    if plan.on_device is not None:
        where = f"the robot builds the {plan.on_device.kind} engines and replays the golden vectors"
        native = [] if runs_here(target.arch) else [not_measured(RUNTIME, _elsewhere(target))]
        return [not_measured(f"{plan.on_device.kind} engine vs {FUSED}", where), *native]
    if not built.runs_here:
        gpu = f"this machine has no {built.planner.provider} for {plan.settings.kind} engines"
        return [not_measured(f"{ENGINE} vs {FUSED}", gpu), not_measured(RUNTIME, gpu)]
    return [] if runs_here(target.arch) else [not_measured(RUNTIME, _elsewhere(target))]


def _elsewhere(target: Target) -> str:
    return f"this machine does not run {target.arch}; verify the release on the robot"


def _device(target: Target, built: Built, work: PolicyWork) -> DeviceNeeds | None:
    """None for a target without an accelerator: any machine of its architecture will do."""
    if target.compute_capability is None:
        return None
    return DeviceNeeds(
        compute_capability=target.compute_capability,
        memory_bytes=device_memory_bytes(built, work),
        versions={name: v for name, v in vars(target.software).items() if v is not None},
    )


def device_memory_bytes(built: Built, work: PolicyWork) -> int:
    """Weights, activations and scratch of both engines: the compiler's figures, or counted."""
    made = [one.compilation for one in (built.planner, built.refiner)]
    told = [c.weight_bytes + c.workspace_bytes for c in made if c is not None]
    return sum(told) if len(told) == len(made) else work.memory_bytes


def _provision(built: Built) -> Provision | None:
    wanted = built.plan.on_device
    if wanted is None:
        return None
    return Provision(kind=wanted.kind, provider=wanted.provider, options=wanted.options)


def _layers(products: Sequence[Product]) -> tuple[Layer, ...]:
    """Products as a release tells of them: those of one layer that are alike count together."""
    runs: Counter[Product] = Counter()
    for product in products:
        runs[replace(product, runs=1)] += product.runs
    return tuple(
        Layer(
            name=shown_name(product),
            kernel=product.kernel,
            precision=product.precision,
            weight_bytes=product.weight_bytes,
            runs=count,
        )
        for product, count in runs.items()
    )


def policy_facts(config: PolicyConfig, checkpoint_sha256: str) -> PolicyFacts:
    """Which policy a release holds, and its time structure."""
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


def _member(name: str, built: BuiltEngine) -> Any:
    return f"engines/{name}.onnx" if built.compilation is None else f"engines/{name}.engine.onnx"


def _compiled(built: BuiltEngine) -> Compiled | None:
    if built.compilation is None:
        return None
    facts = vars(built.compilation)
    return Compiled(**{name: facts[name] for name in Compiled.model_fields})


def _engine(built: BuiltEngine, work: Work) -> dict[str, Any]:
    return {
        "work": work,
        "compiled": _compiled(built),
        "kind": built.kind,
        "provider": built.provider,
        "session_options": dict(built.session_options),
        "inputs": tuple(TensorSpec(**vars(spec)) for spec in built.inputs),
        "outputs": tuple(TensorSpec(**vars(spec)) for spec in built.outputs),
    }


def _decisions(target: Target, built: Built) -> tuple[Decision, ...]:
    kind = Decision(
        stage="build",
        subject="engine kind",
        choice=built.plan.wanted.kind,
        reason=built.plan.reason,
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


def search_decisions(found: Found) -> tuple[Decision, ...]:
    """That layers were sought to keep in high precision, and by what rule."""
    by = "measured time, in powers of two" if found.unit == "us" else "weight bytes moved"
    total = len(found.kept) + len(found.quantized)
    return (
        Decision(
            stage="quantise",
            subject="auto-precision",
            choice=f"{len(found.kept)} of {total} layers in high precision",
            reason=f"the fewest found with which simulated outputs use up at most "
            f"{found.share:.0%} of the gates; costs by {by}",
        ),
    )


def simulation_decisions(plan: EnginePlan) -> tuple[Decision, ...]:
    """That a quantised policy was judged without its engine, where this machine cannot run it."""
    if plan.measurable:
        return ()
    return (
        Decision(
            stage="check",
            subject="parity",
            choice="simulated quantisation",
            reason=f"{plan.wanted.provider} does not run here: what the gates hold is the graphs "
            "that its engines are built from, run on this CPU as they are written",
        ),
    )


def layer_decisions(recipe: Recipe, quantized: Quantized, built: Built) -> tuple[Decision, ...]:
    """What every layer became and why, and what it runs in."""
    runs = running(built.products)
    return tuple(
        Decision(
            stage="quantise",
            subject=name,
            choice=str(precision),
            reason=_why(recipe, quantized, name, precision, runs.get(name)),
        )
        for name, precision in quantized.precisions.items()
    )


def _why(
    recipe: Recipe, quantized: Quantized, name: str, precision: LayerPrecision, runs: str | None
) -> str:
    as_named = "leaves this part" if precision.high else "for this part"
    reason = quantized.reasons.get(name) or f"recipe {recipe.name} {as_named}"
    found = quantized.ranges.get(name)
    if found is not None and precision.activations not in ("fp32", "fp16"):
        reason += f"; {range_words(found, recipe)}"
    return reason + (f"; runs in {runs}" if runs else "")


def range_words(found: Ranges, recipe: Recipe) -> str:
    """What calibration found for a layer's input, as the manifest says it."""
    return f"input within {found.input_amax:.6g} by {recipe.algorithm}"


def calibration_report(quantized: Quantized, data: CalibrationData) -> dict[str, Any]:
    """Dataset, frames and ranges, for the build report."""
    return {
        "dataset": data.source,
        "content": data.sha256,
        "frames": [list(frame) for frame in data.frames],
        "ranges": {
            name: {"input": [found.input_floor, found.input_amax]}
            for name, found in quantized.ranges.items()
        },
        "precisions": {name: str(p) for name, p in quantized.precisions.items()},
    }
