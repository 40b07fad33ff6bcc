"""The whole compiler: checkpoint → verified release, stage by stage.

Nothing is written to the output before every gate has passed; what the stages computed stays in
the cache, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libra_edge.atomic import new_file
from libra_edge.binding.policy import Policy
from libra_edge.bundle.compatibility import device_of, provisioned_needs, require_compatible
from libra_edge.bundle.manifest import Manifest, canonical_json
from libra_edge.bundle.members import SBOM
from libra_edge.bundle.pack import write_release
from libra_edge.bundle.signature import sign_release
from libra_edge.bundle.signing.provenance import write_provenance
from libra_edge.compiler.engines.build import Built, build_engines
from libra_edge.compiler.engines.large_policy import compile_large
from libra_edge.compiler.graphs.make_graphs import Front, OnStage, make_graphs
from libra_edge.compiler.graphs.staged_engines import stages
from libra_edge.compiler.quantization.quantize import Quantized
from libra_edge.compiler.release.facts import calibration_report, release_facts, unmeasured
from libra_edge.compiler.release.files import release_members
from libra_edge.compiler.release.sbom import sbom
from libra_edge.compiler.request import Job, Request
from libra_edge.compiler.resolve import resolve
from libra_edge.compiler.search.candidates import Candidate, candidates
from libra_edge.compiler.search.search import Found
from libra_edge.engines.base import runs_here
from libra_edge.errors import ParityError
from libra_edge.evaluation.torch_controller import torch_engines
from libra_edge.parity.gates import (
    ENGINE,
    RUNTIME,
    Check,
    compare_chain,
    compare_end_to_end,
    require_pass,
)
from libra_edge.parity.golden import golden_members
from libra_edge.parity.on_demand import OnDemand
from libra_edge.policy.executor import Engines

STAGES = ("load", "calibrate", "split", "export", "fuse", "build", "runtime", "check", "assemble")
REPORT_SCHEMA_VERSION = 1


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
    job = resolve(request)
    if not job.from_files:
        return _finish(job, _first_to_pass(job, on_stage), on_stage)
    job.cache.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=job.cache.root) as folder:
        return _finish(job, _carry_out_from_files(job, Path(folder), on_stage), on_stage)


def _finish(job: Job, passed: _Passed, on_stage: OnStage) -> Compiled:
    """Write the release and its report."""
    candidate, built = passed.candidate, passed.built
    on_stage("assemble", str(job.out))
    facts = release_facts(job, candidate, built, passed.checks)
    require_compatible(provisioned_needs(facts), device_of(job.target))
    described_by = {SBOM: sbom}
    manifest = write_release(
        job.out, facts, passed.files, replace=job.request.force, described_by=described_by
    )
    if job.key is not None:
        sign_release(job.out, job.key)
        write_provenance(job.out, manifest, job.key)
    report = _write_report(job, manifest, passed)
    checks = tuple(passed.checks)
    return Compiled(job.out, report, manifest, checks, built.medians_ms, candidate.found)


def _carry_out_from_files(job: Job, folder: Path, on_stage: OnStage) -> _Passed:
    """Graphs, engines and gates of a policy whose weights lie in files of their own."""
    made = compile_large(job, folder, on_stage)
    files = release_members(job, made.built, made.golden, on_stage)
    checks = [*made.checks, *unmeasured(job.target, made.built)]
    return _Passed(Candidate(None), made.built, files, checks)


def _first_to_pass(job: Job, on_stage: OnStage) -> _Passed:
    """Of the candidates the first that passes every gate; most recipes have one."""
    failed: ParityError | None = None
    for candidate in candidates(job, on_stage):
        try:
            return _carry_out(job, candidate, on_stage)
        except ParityError as error:
            if error.code != "parity-failed":
                raise
            failed = error
    assert failed is not None
    raise failed


def _carry_out(job: Job, candidate: Candidate, on_stage: OnStage) -> _Passed:
    """Graphs, engines and gates of one candidate.

    Raises:
        ParityError: a gate did not hold.
    """
    quantized = candidate.quantized
    front = make_graphs(job.checkpoint, job.cache, on_stage, quantized, job.forms)
    reference = torch_engines(quantized.policy if quantized else job.checkpoint.policy)
    on_stage("build", job.plan.settings.kind)
    built = build_engines(job, front, reference)
    files = release_members(job, built, golden_members(reference, job.samples), on_stage)
    checks = _gate(job, front, built, quantized, on_stage)
    if runs_here(job.target.arch) and built.runs_here:
        checks = _gate_runtime(job, built, candidate, files, checks, on_stage)
    return _Passed(candidate, built, files, [*checks, *unmeasured(job.target, built)])


def _gate(
    job: Job, front: Front, built: Built, quantized: Quantized | None, on_stage: OnStage
) -> list[Check]:
    """Hold every stage against the one before it, and the engine against the policy.

    Raises:
        ParityError: one of them differs.
    """
    engines = OnDemand(built.load) if built.runs_here else None
    chain = stages(
        front, built.choice.form, job.checkpoint.policy, quantized.policy if quantized else None
    )
    chain += [(ENGINE, engines)] if engines else []
    judge = _judge(job, on_stage)
    checks = compare_chain(chain, **judge)
    checks += compare_end_to_end(chain[0], chain[-1], **judge)
    require_pass(checks)
    return checks


def _gate_runtime(
    job: Job,
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
    facts = release_facts(job, candidate, built, checks)
    with tempfile.TemporaryDirectory(dir=job.cache.root) as folder:
        write_release(Path(folder, "release"), facts, files)
        staged = Path(folder, "release")
        with Policy(staged, allow_failed=True, allow_random_weights=True) as runtime:
            chain: list[tuple[str, Engines]] = [
                (ENGINE, OnDemand(built.load)),
                (RUNTIME, runtime),
            ]
            found = compare_chain(chain, **_judge(job, on_stage))
    require_pass(found)
    return [*checks, *found]


def _judge(job: Job, on_stage: OnStage) -> dict[str, Any]:
    """What every comparison of this job has in common."""
    return {
        "samples": job.samples,
        "dims": job.checkpoint.config.embodiment.actions,
        "limits": job.gates.limits,
        "on_stage": lambda stage: on_stage("check", stage),
    }


def _write_report(job: Job, manifest: Manifest, passed: _Passed) -> Path:
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
            for name, one in passed.built.by_name.items()
            if one.compilation is not None
        },
    }
    quantized, found = passed.candidate.quantized, passed.candidate.found
    if quantized is not None and job.calibration is not None:
        report["calibration"] = calibration_report(quantized, job.calibration)
    if found is not None:
        report["kept"] = [vars(kept) for kept in found.kept]
        report["sensitivity"] = [one.to_json() for one in found.alone]
    with new_file(path) as stream:
        stream.write(canonical_json(report))
    return path
