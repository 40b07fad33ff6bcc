"""What the manifest says about a compiled policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from libra_edge.binding.abi import ABI_VERSION
from libra_edge.bundle.engine_facts import (
    CalibratedLayer,
    Calibration,
    Compiled,
    Engines,
    Layer,
    PlannerEngine,
    RefinerEngine,
    TensorSpec,
    Work,
)
from libra_edge.bundle.manifest import (
    DeviceNeeds,
    Parity,
    ParityCheck,
    PolicyFacts,
    Provision,
    ReleaseFacts,
    RuntimeFacts,
)
from libra_edge.catalog import LayerPrecision, Recipe, Target
from libra_edge.compiler.cache import tool_versions
from libra_edge.compiler.engines.build import Built
from libra_edge.compiler.engines.read_back import shown_name
from libra_edge.compiler.quantization.calibration_data import CalibrationData
from libra_edge.compiler.quantization.linear import Ranges
from libra_edge.compiler.quantization.quantize import Quantized
from libra_edge.compiler.release.decisions import decisions
from libra_edge.compiler.request import Job
from libra_edge.compiler.search.candidates import Candidate
from libra_edge.compiler.work.count import PolicyWork, count
from libra_edge.engines import engine
from libra_edge.engines.base import BuiltEngine, Product, runs_here
from libra_edge.limits import overall
from libra_edge.parity.gates import ENGINE, FUSED, RUNTIME, Check, not_measured
from libra_edge.policy.config import PolicyConfig
from libra_edge.policy.family import Contract
from libra_edge.runtime.build import onnxruntime_library, onnxruntime_version


def release_facts(
    job: Job, candidate: Candidate, built: Built, checks: Sequence[Check]
) -> ReleaseFacts:
    """The manifest without its list of members; `checks` have all passed."""
    checkpoint, target, recipe = job.checkpoint, job.target, job.recipe
    quantized = candidate.quantized
    precisions = quantized.precisions if quantized else None
    work = None
    if isinstance(checkpoint.config, PolicyConfig):
        work = count(checkpoint.config, recipe, built.plan.qdq, precisions)
    return ReleaseFacts(
        name=job.name,
        policy=policy_facts(checkpoint.config, checkpoint.sha256),
        embodiment=checkpoint.config.embodiment,
        target=target.name,
        recipe=recipe.name,
        engines=Engines(
            planner=(
                None
                if built.planner is None
                else PlannerEngine(
                    member=_member("planner", built.planner),
                    **_engine(built.planner, work.planner if work else None),
                )
            ),
            refiner=RefinerEngine(
                member=_member("refiner", built.refiner),
                form=built.choice.form,
                **_engine(built.refiner, work.refiner if work else None),
            ),
        ),
        runtime=RuntimeFacts(
            abi_version=ABI_VERSION,
            arch=target.arch,
            glibc=target.glibc,
            onnxruntime_version=onnxruntime_version(onnxruntime_library()),
        ),
        decisions=decisions(job, candidate, built),
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
        tools={**tool_versions(), **engine(built.refiner.kind).tools()},
        device=_device(target, built, work),
        provision=_provision(built),
        random_weights=checkpoint.random_weights,
        layers=_layers(built.products),
        gates=job.gates.changes,
        security_epoch=job.request.security_epoch,
        calibration=(
            calibration_facts(quantized, recipe, job.calibration)
            if quantized and job.calibration
            else None
        ),
    )


_OF_A_CONTRACT = (
    *("bins", "chunk", "chunks_per_plan", "plan_steps", "denoise_steps", "prediction_type"),
    *("scheduler", "instruction_length", "observation_steps"),
)


def unmeasured(target: Target, built: Built) -> list[Check]:
    """What could not be held against the policy on this machine; none of it counts as passed."""
    plan = built.plan
    if plan.on_device is not None:
        where = f"the robot builds the {plan.on_device.kind} engines and replays the golden vectors"
        native = [] if runs_here(target.arch) else [not_measured(RUNTIME, _elsewhere(target))]
        return [not_measured(f"{plan.on_device.kind} engine vs {FUSED}", where), *native]
    if not built.runs_here:
        gpu = f"this machine has no {built.refiner.provider} for {plan.settings.kind} engines"
        return [not_measured(f"{ENGINE} vs {FUSED}", gpu), not_measured(RUNTIME, gpu)]
    return [] if runs_here(target.arch) else [not_measured(RUNTIME, _elsewhere(target))]


def _elsewhere(target: Target) -> str:
    return f"this machine does not run {target.arch}; verify the release on the robot"


def _device(target: Target, built: Built, work: PolicyWork | None) -> DeviceNeeds | None:
    """None for a target without an accelerator: any machine of its architecture will do."""
    if target.compute_capability is None:
        return None
    return DeviceNeeds(
        compute_capability=target.compute_capability,
        memory_bytes=device_memory_bytes(built, work),
        versions={name: v for name, v in vars(target.software).items() if v is not None},
    )


def device_memory_bytes(built: Built, work: PolicyWork | None) -> int:
    """Weights, activations and scratch of the engines: the compiler's figures, or counted.

    Where nothing is counted, the graphs with their weights stand for them.
    """
    made = [one.compilation for one in built.by_name.values()]
    told = [c.weight_bytes + c.workspace_bytes for c in made if c is not None]
    if len(told) == len(made):
        return sum(told)
    return work.memory_bytes if work else sum(len(one.graph) for one in built.by_name.values())


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


def policy_facts(config: PolicyConfig | Contract, checkpoint_sha256: str) -> PolicyFacts:
    """Which policy a release holds, and its time structure."""
    if isinstance(config, Contract):
        return PolicyFacts(
            type=config.family,
            checkpoint_sha256=checkpoint_sha256,
            predicted=config.rows if config.rows > config.chunk else None,
            **{name: getattr(config, name) for name in _OF_A_CONTRACT},
        )
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


def _engine(built: BuiltEngine, work: Work | None) -> dict[str, Any]:
    return {
        "work": work,
        "compiled": _compiled(built),
        "kind": built.kind,
        "provider": built.provider,
        "session_options": dict(built.session_options),
        "inputs": tuple(TensorSpec(**vars(spec)) for spec in built.inputs),
        "outputs": tuple(TensorSpec(**vars(spec)) for spec in built.outputs),
    }


def calibration_facts(quantized: Quantized, recipe: Recipe, data: CalibrationData) -> Calibration:
    """What a release was calibrated on and what came of it, for whoever calibrates again."""
    return Calibration(
        dataset=data.source,
        sha256=data.sha256,
        algorithm=recipe.algorithm,
        frames=data.frames,
        layers={
            name: CalibratedLayer(
                precision=str(precision),
                input_amax=input_amax(quantized.ranges.get(name), precision),
            )
            for name, precision in quantized.precisions.items()
        },
    )


def input_amax(found: Ranges | None, precision: LayerPrecision) -> float | None:
    """The largest input found, to six digits; None where inputs are not rounded."""
    if found is None or not precision.rounds_inputs:
        return None
    return float(f"{found.input_amax:.6g}")


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
