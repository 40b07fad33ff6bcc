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
from libra_edge.bundle.manifest import Manifest, canonical_json
from libra_edge.bundle.members import MANIFEST
from libra_edge.bundle.pack import write_release
from libra_edge.catalog import Recipe, Target, load_recipe, load_target, require_supported
from libra_edge.compiler.build import Built, build_engines
from libra_edge.compiler.cache import StageCache, default_cache
from libra_edge.compiler.facts import release_facts
from libra_edge.compiler.front import Front, OnStage, make_graphs
from libra_edge.compiler.fuse import Form
from libra_edge.compiler.golden import golden_members
from libra_edge.compiler.stages import exported_engines, fused_engines, split_engines
from libra_edge.engines.base import runs_here
from libra_edge.errors import InputError
from libra_edge.parity.gates import (
    ENGINE,
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
from libra_edge.runtime.build import HEADER, build_library, onnxruntime_library, source_hash

STAGES = ("load", "split", "export", "fuse", "build", "runtime", "check", "assemble")
GATE_SAMPLES = 32
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
        form: the refiner's form; None keeps the faster.
        cache: folder of stage outputs; None takes the user's cache folder.
        force: replace a release that stands at `out`.
        samples: observations every gate is measured on.
        seed: of the samples and their noise.
    """

    checkpoint: Path
    target: str = "cpu-x86_64"
    recipe: str | None = None
    out: Path | None = None
    name: str | None = None
    data: Path | None = None
    form: Form | None = None
    cache: Path | None = None
    force: bool = False
    samples: int = GATE_SAMPLES
    seed: int = 0


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
    recipe: Recipe
    samples: Sequence[Sample]
    cache: StageCache


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
    front = make_graphs(job.checkpoint, job.cache, on_stage)
    reference = TorchEngines(job.checkpoint.policy)
    on_stage("build", job.target.engines[0].kind)
    built = build_engines(
        front, job.target, job.recipe, request.form, job.cache, reference, job.samples
    )
    on_stage("runtime", f"native code for {job.target.arch}")
    files = _members(job, built, reference)
    checks = _gate(job, front, built, reference, on_stage)
    if runs_here(job.target.arch):
        checks = _gate_runtime(job, built, files, checks, on_stage)
    on_stage("assemble", str(job.out))
    facts = release_facts(job.name, job.checkpoint, job.target, job.recipe, built, checks)
    manifest = write_release(job.out, facts, files, replace=request.force)
    report = _write_report(job, manifest, built, checks)
    return Compiled(job.out, report, manifest, tuple(checks), built.medians_ms)


def _resolve(request: Request) -> _Job:
    """Refuse what can be refused before any work is done, cheapest first."""
    target = load_target(request.target)
    recipe = load_recipe(request.recipe or target.default_recipe)
    require_supported(target, recipe)
    if request.out is not None:
        _require_free(request.out, replace=request.force)
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(request.checkpoint)
    robot = checkpoint.config.embodiment
    name = request.name or robot.name
    out = request.out or Path(f"{name}-{target.name}-{recipe.name}")
    _require_free(out, replace=request.force)
    samples = choose_samples(
        robot, checkpoint.config, checkpoint.tokenizer, request.samples, request.seed, request.data
    )
    cache = StageCache(request.cache or default_cache())
    return _Job(name, out, checkpoint, target, recipe, samples, cache)


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
    return {
        "tokenizer.json": (job.checkpoint.path / TOKENIZER).read_bytes(),
        "engines/planner.onnx": built.planner.content,
        "engines/refiner.onnx": built.refiner.content,
        "lib/liblibra_edge.so": _native_library(job.target, job.cache),
        "lib/libonnxruntime.so": onnxruntime_library(),
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
    job: _Job, front: Front, built: Built, reference: Engines, on_stage: OnStage
) -> list[Check]:
    """Hold every stage against the one before it, and the engine against the policy.

    Raises:
        ParityError: one of them differs.
    """
    engines = built.load()
    chain: list[tuple[str, Engines]] = [
        (POLICY, reference),
        ("split", split_engines(front.split)),
        ("exported", exported_engines(front.exported, front.split.tables)),
        ("fused", fused_engines(front.planner, front.refiners[built.choice.form])),
        (ENGINE, engines),
    ]
    judge = _judge(job, on_stage)
    checks = compare_chain(chain, **judge)
    checks += compare_end_to_end((POLICY, reference), (ENGINE, engines), **judge)
    require_pass(checks)
    return checks


def _gate_runtime(
    job: _Job,
    built: Built,
    files: Mapping[str, Path | bytes],
    checks: Sequence[Check],
    on_stage: OnStage,
) -> list[Check]:
    """Run the release through the C ABI, from a staged copy, against the engine.

    Raises:
        ParityError: they differ.
    """
    facts = release_facts(job.name, job.checkpoint, job.target, job.recipe, built, checks)
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
        "limits": LIMITS[job.recipe.precision],
        "on_stage": lambda stage: on_stage("check", stage),
    }


def _write_report(job: _Job, manifest: Manifest, built: Built, checks: Sequence[Check]) -> Path:
    """`NAME.build.json` beside the release: figures that would make its bytes irreproducible."""
    path = job.out.parent / f"{job.out.name}.build.json"
    report = {
        "schema_version": REPORT_SCHEMA_VERSION,
        "release_id": manifest.release_id,
        "medians_ms": dict(built.medians_ms),
        "checks": [check.to_json() for check in checks],
    }
    with new_file(path) as stream:
        stream.write(canonical_json(report))
    return path
