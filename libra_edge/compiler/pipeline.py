"""The whole compiler: checkpoint → verified release, stage by stage.

Nothing is written to the output before every gate has passed; what the stages computed stays in
the cache, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
from libra_edge.compiler.auto_precision import Found
from libra_edge.compiler.build import Built, build_engines
from libra_edge.compiler.cache import StageCache, default_cache
from libra_edge.compiler.calibration_data import CalibrationData, open_calibration_data
from libra_edge.compiler.candidates import Candidate, as_the_recipe_says, seek
from libra_edge.compiler.engine_plan import EnginePlan, plan_engines
from libra_edge.compiler.facts import (
    calibration_decisions,
    calibration_report,
    layer_decisions,
    release_facts,
    search_decisions,
    simulation_decisions,
    unmeasured,
)
from libra_edge.compiler.front import Front, OnStage, make_graphs
from libra_edge.compiler.fuse import Form
from libra_edge.compiler.golden import golden_members
from libra_edge.compiler.large import SAMPLES as LARGE_SAMPLES
from libra_edge.compiler.large import compile_large, is_large, require_drawn
from libra_edge.compiler.quantize import (
    Quantised,
    require_calibration_runs_here,
)
from libra_edge.compiler.stages import exported_engines, fused_engines, split_engines
from libra_edge.engines import engine
from libra_edge.engines.base import runs_here
from libra_edge.errors import InputError, ParityError
from libra_edge.limits import Gates, gates_between, read_gates
from libra_edge.parity.gates import (
    ENGINE,
    FUSED,
    POLICY,
    RUNTIME,
    Check,
    compare_chain,
    compare_end_to_end,
    require_pass,
)
from libra_edge.parity.samples import Sample, choose_samples
from libra_edge.policy.checkpoint import CONFIG, TOKENIZER, Checkpoint, load_checkpoint
from libra_edge.policy.config import read_config
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
        auto_precision: keep the worst layers of the recipe in high precision until the gates hold.
        max_action_error: then the gate of action errors, a fraction of each dimension's range, no
            larger than the recipe's; None takes the recipe's.
        gates: TOML file of limits that replace the recipe's; None takes those.
        allow_loose: take limits that are looser than the recipe's; the manifest says so.
        form: the refiner's form; None keeps the faster.
        cache: folder of stage outputs; None takes the user's cache folder.
        force: replace a release that stands at `out`.
        samples: observations every gate is measured on; None as many as the recipe's gates need.
        seed: of the samples and their noise.
        engine: kind of the engines; None takes what the target prefers.
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
    auto_precision: bool = False
    max_action_error: float | None = None
    gates: Path | None = None
    allow_loose: bool = False
    form: Form | None = None
    cache: Path | None = None
    force: bool = False
    samples: int | None = None
    seed: int = 0
    engine: str | None = None
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
    found: Found | None = None


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
    gates: Gates


@dataclass(frozen=True)
class _Passed:
    """What passed every gate."""

    candidate: Candidate
    built: Built
    files: Mapping[str, Path | bytes]
    checks: Sequence[Check]


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
    if not job.checkpoint.drawn_in_half:
        return _finish(job, request, _first_to_pass(job, request, on_stage), on_stage)
    job.cache.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=job.cache.root) as folder:
        passed = _carry_out_large(job, request, Path(folder), on_stage)
        return _finish(job, request, passed, on_stage)


def _finish(job: _Job, request: Request, passed: _Passed, on_stage: OnStage) -> Compiled:
    """Write the release and its report."""
    candidate, built = passed.candidate, passed.built
    on_stage("assemble", str(job.out))
    facts = _facts(job, built, candidate, passed.checks)
    require_compatible(provisioned_needs(facts), device_of(job.target))
    manifest = write_release(job.out, facts, passed.files, replace=request.force)
    report = _write_report(job, manifest, passed)
    checks = tuple(passed.checks)
    return Compiled(job.out, report, manifest, checks, built.medians_ms, candidate.found)


def _carry_out_large(job: _Job, request: Request, folder: Path, on_stage: OnStage) -> _Passed:
    """Graphs, engines and gates of a policy whose weights lie in files of their own."""
    made = compile_large(
        job.checkpoint,
        job.target,
        job.plan,
        request.form,
        job.samples,
        job.gates.limits,
        folder,
        on_stage,
    )
    on_stage("runtime", f"native code for {job.target.arch}")
    files = _members(job, made.built, made.golden)
    checks = [*made.checks, *unmeasured(job.target, made.built)]
    return _Passed(Candidate(None), made.built, files, checks)


def _first_to_pass(job: _Job, request: Request, on_stage: OnStage) -> _Passed:
    """Of the candidates the first that passes every gate; most recipes have one."""
    failed: ParityError | None = None
    for candidate in _candidates(job, request, on_stage):
        try:
            return _carry_out(job, request, candidate, on_stage)
        except ParityError as error:
            if error.code != "parity-failed":
                raise
            failed = error
    assert failed is not None
    raise failed


def _carry_out(job: _Job, request: Request, candidate: Candidate, on_stage: OnStage) -> _Passed:
    """Graphs, engines and gates of one candidate.

    Raises:
        ParityError: a gate did not hold.
    """
    quantised = candidate.quantised
    front = make_graphs(job.checkpoint, job.cache, on_stage, quantised)
    reference = TorchEngines(quantised.policy if quantised else job.checkpoint.policy)
    on_stage("build", job.plan.settings.kind)
    built = build_engines(
        front,
        job.target,
        job.plan,
        job.gates.limits,
        request.form,
        job.cache,
        reference,
        job.samples,
    )
    on_stage("runtime", f"native code for {job.target.arch}")
    files = _members(job, built, golden_members(reference, job.samples))
    checks = _gate(job, front, built, quantised, on_stage)
    if runs_here(job.target.arch) and built.runs_here:
        checks = _gate_runtime(job, built, candidate, files, checks, on_stage)
    return _Passed(candidate, built, files, [*checks, *unmeasured(job.target, built)])


def _resolve(request: Request) -> _Job:
    """Refuse what can be refused before any work is done, cheapest first."""
    target = load_target(request.target)
    recipe = load_recipe(request.recipe or target.default_recipe)
    require_supported(target, recipe)
    plan = plan_engines(target, kind=request.engine, on_device=request.engines_on_device)
    engine(plan.settings.kind).tools()
    require_calibration_runs_here(recipe)
    gates = _gates(request, recipe)
    if recipe.quantises and request.calibrate is None:
        raise InputError(
            "calibration-data-missing",
            f"Recipe {recipe.name!r} needs data to find the ranges of activations on.",
            "Name the training data: --calibrate DATASET.",
        )
    if request.out is not None:
        _require_free(request.out, replace=request.force)
    torch.set_num_threads(1)
    config = read_config(request.checkpoint / CONFIG)
    large = is_large(config)
    if large:
        require_drawn(config, recipe, plan, random=request.random_weights)
    checkpoint = load_checkpoint(
        request.checkpoint, random_weights=request.random_weights, in_half=large
    )
    robot = checkpoint.config.embodiment
    name = request.name or robot.name + ("-random-weights" if request.random_weights else "")
    out = request.out or Path(f"{name}-{target.name}-{recipe.name}")
    _require_free(out, replace=request.force)
    usual = QUANTISED_GATE_SAMPLES if recipe.quantises else GATE_SAMPLES
    count = request.samples or (LARGE_SAMPLES if large else usual)
    samples = choose_samples(
        robot, checkpoint.config, checkpoint.tokenizer, count, request.seed, request.data
    )
    calibration = None
    if request.calibrate is not None and recipe.quantises:
        frames = request.calibration_samples or recipe.samples
        calibration = open_calibration_data(request.calibrate, request.data, checkpoint, frames)
    cache = StageCache(request.cache or default_cache())
    return _Job(name, out, checkpoint, target, plan, recipe, samples, cache, calibration, gates)


def _gates(request: Request, recipe: Recipe) -> Gates:
    """The recipe's gates, with what was asked for in their place."""
    gates = read_gates(request.gates, recipe.gates, allow_loose=request.allow_loose)
    limits = gates.limits
    if request.auto_precision and not recipe.quantises:
        raise InputError(
            "recipe-quantises-nothing",
            f"Recipe {recipe.name!r} has no layers that could be kept in high precision.",
            "Start from a recipe with calibration, or leave out --auto-precision.",
        )
    if request.max_action_error is None:
        return gates
    if not request.auto_precision or request.max_action_error > limits.action:
        raise InputError(
            "action-error-gate",
            f"The gate of recipe {recipe.name!r} is {limits.action:.3%} of each range; "
            f"{request.max_action_error:.3%} was asked for"
            + ("." if request.auto_precision else " without --auto-precision."),
            "--max-action-error goes with --auto-precision and makes a gate stricter, never wider.",
        )
    stricter = limits.model_copy(update={"action": request.max_action_error})
    return gates_between(recipe.gates, stricter)


def _candidates(job: _Job, request: Request, on_stage: OnStage) -> Iterator[Candidate]:
    """What the recipe says, or choices of layers to keep, sought on the gates' samples and more."""
    settings, config = job.plan.wanted, job.checkpoint.config
    first = as_the_recipe_says(
        job.checkpoint, job.recipe, settings, job.calibration, job.cache, on_stage
    )
    if not request.auto_precision:
        yield first
        return
    assert first.quantised is not None
    others = choose_samples(
        config.embodiment,
        config,
        job.checkpoint.tokenizer,
        len(job.samples),
        request.seed + 1,
        request.calibrate,
    )
    yield from seek(
        job.checkpoint,
        job.target,
        settings,
        job.recipe,
        first.quantised,
        [*job.samples, *others],
        job.gates.limits,
        job.cache,
        on_stage,
    )


def _facts(job: _Job, built: Built, candidate: Candidate, checks: Sequence[Check]) -> ReleaseFacts:
    quantised = candidate.quantised
    extra = (
        *(calibration_decisions(job.calibration) if job.calibration else ()),
        *(search_decisions(candidate.found) if candidate.found else ()),
        *(simulation_decisions(job.plan) if quantised else ()),
        *(layer_decisions(job.recipe, quantised, built) if quantised else ()),
    )
    facts = release_facts(
        job.name, job.checkpoint, job.target, job.recipe, built, checks, extra, quantised
    )
    return facts.model_copy(update={"gates": job.gates.changes})


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


def _members(job: _Job, built: Built, golden: Mapping[str, bytes]) -> dict[str, Path | bytes]:
    """Every member of the release but its manifest."""
    pair = {"planner": built.planner, "refiner": built.refiner}
    compiled = {
        f"engines/{name}.engine.onnx": one.content
        for name, one in pair.items()
        if one.compilation is not None
    }
    apart = {
        f"engines/{name}.{suffix}": path
        for name, one in pair.items()
        for suffix, path in (("data", one.data), ("engine", one.engine))
        if path is not None
    }
    return {
        **compiled,
        **apart,
        "tokenizer.json": (job.checkpoint.path / TOKENIZER).read_bytes(),
        "engines/planner.onnx": built.planner.graph,
        "engines/refiner.onnx": built.refiner.graph,
        "lib/liblibra_edge.so": _native_library(job.target, job.cache),
        "lib/libonnxruntime.so": fetch_onnxruntime(job.target),
        "include/libra_edge.h": HEADER.read_bytes(),
        **golden,
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
    candidate: Candidate,
    files: Mapping[str, Path | bytes],
    checks: Sequence[Check],
    on_stage: OnStage,
) -> list[Check]:
    """Run the release through the C ABI, from a staged copy, against the engine.

    Raises:
        ParityError: they differ.
    """
    facts = _facts(job, built, candidate, checks)
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
        "limits": job.gates.limits,
        "on_stage": lambda stage: on_stage("check", stage),
    }


def _write_report(job: _Job, manifest: Manifest, passed: _Passed) -> Path:
    """`NAME.build.json` beside the release: figures that would make its bytes irreproducible."""
    path = job.out.parent / f"{job.out.name}.build.json"
    report: dict[str, Any] = {
        "schema_version": REPORT_SCHEMA_VERSION,
        "release_id": manifest.release_id,
        "medians_ms": dict(passed.built.medians_ms),
        "checks": [check.to_json() for check in passed.checks],
        "products": [vars(product) for product in passed.built.products],
        "compilations": {
            name: vars(one.compilation)
            for name, one in (("planner", passed.built.planner), ("refiner", passed.built.refiner))
            if one.compilation is not None
        },
    }
    quantised, found = passed.candidate.quantised, passed.candidate.found
    if quantised is not None and job.calibration is not None:
        report["calibration"] = calibration_report(quantised, job.calibration)
    if found is not None:
        report["kept"] = [vars(kept) for kept in found.kept]
        report["sensitivity"] = [one.to_json() for one in found.alone]
    with new_file(path) as stream:
        stream.write(canonical_json(report))
    return path
