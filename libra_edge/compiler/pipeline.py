"""The whole compiler: checkpoint → verified release, stage by stage.

Nothing is written to the output before every gate has passed; what the stages computed stays in
the cache, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from libra_edge.atomic import new_file
from libra_edge.bundle.compatibility import device_of, provisioned_needs, require_compatible
from libra_edge.bundle.manifest import Manifest, ReleaseFacts, canonical_json
from libra_edge.bundle.members import MANIFEST
from libra_edge.bundle.pack import write_release
from libra_edge.catalog import Recipe, Target, load_recipe, load_target, require_supported
from libra_edge.compiler.build import Built, build_engines
from libra_edge.compiler.cache import StageCache, default_cache
from libra_edge.compiler.calibration_data import (
    CalibrationData,
    read_calibration_data,
    require_apart,
)
from libra_edge.compiler.engine_plan import EnginePlan, plan_engines
from libra_edge.compiler.facts import (
    calibration_decisions,
    calibration_report,
    layer_decisions,
    release_facts,
    unmeasured,
)
from libra_edge.compiler.front import Front, OnStage, make_graphs
from libra_edge.compiler.fuse import Form
from libra_edge.compiler.golden import golden_members
from libra_edge.compiler.quantize import (
    Quantised,
    in_half,
    quantise,
    require_calibration_runs_here,
)
from libra_edge.compiler.stages import exported_engines, fused_engines, split_engines
from libra_edge.data.extras import needs_extra
from libra_edge.engines import engine
from libra_edge.engines.base import runs_here
from libra_edge.errors import InputError
from libra_edge.parity.gates import (
    ENGINE,
    FUSED,
    LIMITS,
    POLICY,
    RUNTIME,
    Check,
    compare_chain,
    compare_end_to_end,
    require_pass,
)
from libra_edge.parity.samples import Sample, choose_samples
from libra_edge.policy.checkpoint import TOKENIZER, Checkpoint, load_checkpoint
from libra_edge.policy.executor import Engines
from libra_edge.policy.torch_controller import TorchEngines
from libra_edge.runtime import Policy
from libra_edge.runtime.build import HEADER, build_library, source_hash
from libra_edge.runtime.fetch import fetch_onnxruntime

STAGES = ("load", "calibrate", "split", "export", "fuse", "build", "runtime", "check", "assemble")
GATE_SAMPLES = 32
# A gate on a percentile needs more to stand on.
QUANTISED_GATE_SAMPLES = 128
REPORT_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Request:
    """What to compile.

    Args:
        checkpoint: the checkpoint folder.
        target: name of a target.
        recipe: name of a recipe; None takes the target's default.
        out: the release directory; None names it after release, target and recipe.
        name: the release's name; None takes the robot's.
        data: LeRobot dataset for the golden vectors and the gates; None makes up observations.
        calibrate: LeRobot dataset to find ranges on; needed by recipes that quantise.
        calibration_samples: how many of its frames; None as many as the recipe wants.
        form: the refiner's form; None keeps the faster.
        cache: folder of stage outputs; None takes the user's cache folder.
        force: replace a release that stands at `out`.
        samples: observations every gate is measured on; None as many as the recipe's gates need.
        seed: of the samples and their noise.
        engines_on_device: leave building the engines to the robot.
        random_weights: draw the policy's weights; the release is for measuring alone.
    """

    checkpoint: Path
    target: str = "cpu-x86_64"
    recipe: str | None = None
    out: Path | None = None
    name: str | None = None
    data: Path | None = None
    calibrate: Path | None = None
    calibration_samples: int | None = None
    form: Form | None = None
    cache: Path | None = None
    force: bool = False
    samples: int | None = None
    seed: int = 0
    engines_on_device: bool = False
    random_weights: bool = False


@dataclass(frozen=True)
class Compiled:
    """A finished release, and the exact figures that are too machine-bound to be in it."""

    path: Path
    report: Path
    manifest: Manifest
    checks: tuple[Check, ...]
    medians_ms: Mapping[str, float]


@dataclass(frozen=True)
class _Job:
    """A request with everything it names loaded and checked."""

    name: str
    out: Path
    checkpoint: Checkpoint
    target: Target
    plan: EnginePlan
    recipe: Recipe
    samples: Sequence[Sample]
    cache: StageCache
    calibration: CalibrationData | None


def compile_checkpoint(request: Request, on_stage: OnStage = lambda stage, note: None) -> Compiled:
    """Compile a checkpoint into a release.

    Sets PyTorch's intra-op threads to 1, so that golden vectors do not depend on the core count.

    Args:
        request: what to compile.
        on_stage: called with a stage of `STAGES` and what is going on, as it begins.

    Raises:
        LibraError: something about the request, the checkpoint or the disk does not fit.
        ParityError: a stage is not the policy any more; nothing was written.
    """
    on_stage("load", str(request.checkpoint))
    job = _resolve(request)
    quantised = _quantise(job, on_stage)
    front = make_graphs(job.checkpoint, job.cache, on_stage, quantised)
    reference = TorchEngines(quantised.policy if quantised else job.checkpoint.policy)
    on_stage("build", job.plan.settings.kind)
    built = build_engines(
        front, job.target, job.plan, job.recipe, request.form, job.cache, reference, job.samples
    )
    on_stage("runtime", f"native code for {job.target.arch}")
    files = _members(job, built, reference)
    checks = _gate(job, front, built, quantised, on_stage)
    if runs_here(job.target.arch) and built.runs_here:
        checks = _gate_runtime(job, built, quantised, files, checks, on_stage)
    checks = [*checks, *unmeasured(job.target, built)]
    on_stage("assemble", str(job.out))
    facts = _facts(job, built, quantised, checks)
    require_compatible(provisioned_needs(facts), device_of(job.target))
    manifest = write_release(job.out, facts, files, replace=request.force)
    report = _write_report(job, manifest, built, quantised, checks)
    return Compiled(job.out, report, manifest, tuple(checks), built.medians_ms)


def _resolve(request: Request) -> _Job:
    """Refuse what can be refused before any work is done, cheapest first."""
    target = load_target(request.target)
    recipe = load_recipe(request.recipe or target.default_recipe)
    require_supported(target, recipe)
    plan = plan_engines(target, on_device=request.engines_on_device)
    engine(plan.settings.kind).tools()
    require_calibration_runs_here(recipe)
    if recipe.quantises and request.calibrate is None:
        raise InputError(
            "calibration-data-missing",
            f"Recipe {recipe.name!r} needs data to find the ranges of activations on.",
            "Name the training data: --calibrate DATASET.",
        )
    if request.out is not None:
        _require_free(request.out, replace=request.force)
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(request.checkpoint, random_weights=request.random_weights)
    robot = checkpoint.config.embodiment
    name = request.name or robot.name + ("-random-weights" if request.random_weights else "")
    out = request.out or Path(f"{name}-{target.name}-{recipe.name}")
    _require_free(out, replace=request.force)
    count = request.samples or (QUANTISED_GATE_SAMPLES if recipe.quantises else GATE_SAMPLES)
    samples = choose_samples(
        robot, checkpoint.config, checkpoint.tokenizer, count, request.seed, request.data
    )
    calibration = _calibration_data(request, recipe, checkpoint) if recipe.quantises else None
    cache = StageCache(request.cache or default_cache())
    return _Job(name, out, checkpoint, target, plan, recipe, samples, cache, calibration)


def _calibration_data(request: Request, recipe: Recipe, checkpoint: Checkpoint) -> CalibrationData:
    assert request.calibrate is not None
    with needs_extra("train", "Reading a dataset"):
        from libra_edge.data.lerobot import Dataset
    dataset = Dataset(request.calibrate)
    dataset.check_matches(checkpoint.config.embodiment)
    if request.data is not None:
        require_apart(dataset, Dataset(request.data))
    count = request.calibration_samples or recipe.samples
    return read_calibration_data(dataset, checkpoint, count)


def _quantise(job: _Job, on_stage: OnStage) -> Quantised | None:
    if job.recipe.precision == "fp16":
        on_stage("calibrate", "16-bit floats need no ranges")
        return in_half(job.checkpoint)
    if job.calibration is None:
        on_stage("calibrate", f"nothing to do for {job.recipe.name}")
        return None
    on_stage("calibrate", f"{job.recipe.algorithm} on {len(job.calibration)} samples")
    return quantise(job.checkpoint, job.recipe, job.calibration, job.plan.qdq, job.cache)


def _facts(
    job: _Job, built: Built, quantised: Quantised | None, checks: Sequence[Check]
) -> ReleaseFacts:
    extra = (
        *(calibration_decisions(job.calibration) if job.calibration else ()),
        *(layer_decisions(job.recipe, quantised, built) if quantised else ()),
    )
    return release_facts(job.name, job.checkpoint, job.target, job.recipe, built, checks, extra)


def _require_free(out: Path, *, replace: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    is_release = (out / MANIFEST).is_file()
    if not (replace and is_release):
        raise InputError(
            "destination-exists",
            f"{out} exists and is not empty.",
            "Choose another place with --out, or pass --force to replace the release there."
            if is_release
            else "Choose another place with --out; it holds no release, so it is not replaced.",
        )


def _members(job: _Job, built: Built, reference: Engines) -> dict[str, Path | bytes]:
    """Every member of the release but its manifest."""
    compiled = {
        f"engines/{name}.engine.onnx": one.content
        for name, one in (("planner", built.planner), ("refiner", built.refiner))
        if one.compilation is not None
    }
    return {
        **compiled,
        "tokenizer.json": (job.checkpoint.path / TOKENIZER).read_bytes(),
        "engines/planner.onnx": built.planner.graph,
        "engines/refiner.onnx": built.refiner.graph,
        "lib/liblibra_edge.so": _native_library(job.target, job.cache),
        "lib/libonnxruntime.so": fetch_onnxruntime(job.target),
        "include/libra_edge.h": HEADER.read_bytes(),
        **golden_members(reference, job.samples),
    }


def _native_library(target: Target, cache: StageCache) -> bytes:
    def build() -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            library = build_library(Path(folder), target.arch, target.glibc)
            return {"library": library.read_bytes()}

    inputs = {
        "sources": source_hash(),
        "compiler": version("ziglang"),
        "arch": target.arch,
        "glibc": target.glibc,
    }
    return cache.get_or_make("runtime", inputs, build)[0]["library"]


def _gate(
    job: _Job, front: Front, built: Built, quantised: Quantised | None, on_stage: OnStage
) -> list[Check]:
    """Hold every stage against the one before it, and the engine against the policy.

    Raises:
        ParityError: one of them differs.
    """
    engines = built.load() if built.runs_here else None
    reference = TorchEngines(job.checkpoint.policy)
    chain: list[tuple[str, Engines]] = [
        (POLICY, reference),
        *([("quantised", TorchEngines(quantised.policy))] if quantised else []),
        ("split", split_engines(front.split)),
        ("exported", exported_engines(front.exported, front.split.tables)),
        (FUSED, fused_engines(front.planner, front.refiners[built.choice.form])),
        *([(ENGINE, engines)] if engines else []),
    ]
    judge = _judge(job, on_stage)
    checks = compare_chain(chain, **judge)
    checks += compare_end_to_end(chain[0], chain[-1], **judge)
    require_pass(checks)
    return checks


def _gate_runtime(
    job: _Job,
    built: Built,
    quantised: Quantised | None,
    files: Mapping[str, Path | bytes],
    checks: Sequence[Check],
    on_stage: OnStage,
) -> list[Check]:
    """Run the release through the C ABI, from a staged copy, against the engine.

    Raises:
        ParityError: they differ.
    """
    facts = _facts(job, built, quantised, checks)
    with tempfile.TemporaryDirectory(dir=job.cache.root) as folder:
        write_release(Path(folder, "release"), facts, files)
        with Policy(Path(folder, "release")) as runtime:
            chain: list[tuple[str, Engines]] = [(ENGINE, built.load()), (RUNTIME, runtime)]
            found = compare_chain(chain, **_judge(job, on_stage))
    require_pass(found)
    return [*checks, *found]


def _judge(job: _Job, on_stage: OnStage) -> dict[str, Any]:
    """What every comparison of this job has in common."""
    return {
        "samples": job.samples,
        "dims": job.checkpoint.config.embodiment.actions,
        "limits": LIMITS[job.recipe.name],
        "on_stage": lambda stage: on_stage("check", stage),
    }


def _write_report(
    job: _Job,
    manifest: Manifest,
    built: Built,
    quantised: Quantised | None,
    checks: Sequence[Check],
) -> Path:
    """`NAME.build.json` beside the release: figures that would make its bytes irreproducible."""
    path = job.out.parent / f"{job.out.name}.build.json"
    report: dict[str, Any] = {
        "schema_version": REPORT_SCHEMA_VERSION,
        "release_id": manifest.release_id,
        "medians_ms": dict(built.medians_ms),
        "checks": [check.to_json() for check in checks],
        "products": [vars(product) for product in built.products],
        "compilations": {
            name: vars(one.compilation)
            for name, one in (("planner", built.planner), ("refiner", built.refiner))
            if one.compilation is not None
        },
    }
    if quantised is not None and job.calibration is not None:
        report["calibration"] = calibration_report(quantised, job.calibration)
    with new_file(path) as stream:
        stream.write(canonical_json(report))
    return path
