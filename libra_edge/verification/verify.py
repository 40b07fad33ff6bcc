"""Is a release still the policy it was compiled from? A list of examinations, one file each.

Without a checkpoint only the release itself can be judged: its bytes, its golden vectors, whether
its graphs are what it says, and whether the C ABI gives what the engine gives. The comparisons that
this leaves out are listed as not measured. Only those with a checkpoint need the `compile` extra.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from libra_edge.bundle.verify import Release, open_release
from libra_edge.compiler.cache import default_cache
from libra_edge.errors import CrashedError
from libra_edge.evaluation.non_inferiority import STAGE as CLOSED_LOOP
from libra_edge.evaluation.non_inferiority import closed_loop_checks
from libra_edge.limits import read_gates
from libra_edge.parity.gates import Check, not_measured
from libra_edge.user_cache import make_writable
from libra_edge.verification.claims.calibrated import examine_calibration
from libra_edge.verification.claims.compiled_again import examine_compiled_again
from libra_edge.verification.claims.engine_headers import examine_engine_headers
from libra_edge.verification.claims.examine import examine_claims, read_shown_here
from libra_edge.verification.claims.speed import examine_speed
from libra_edge.verification.comparison import examine_golden, examine_stages, examine_steps
from libra_edge.verification.inputs.examine import examine_inputs
from libra_edge.verification.isolation.remote import RemoteDriver
from libra_edge.verification.native.conformance import native_checks
from libra_edge.verification.recompile import Trained, read_checkpoint
from libra_edge.verification.request import Request
from libra_edge.verification.result import Verification, power_of
from libra_edge.verification.subject import OnStage, Subject

Examination = Callable[[Subject], Sequence[Check]]


def examine_native(subject: Subject) -> Sequence[Check]:
    """The release's own library: its bytes, and what it does."""
    if subject.request.quick:
        return ()
    return native_checks(subject.release, subject.request.cache, subject.on_stage)


# Of every release; and of one that more is asked of than its bytes and golden vectors.
ALWAYS: dict[str, Examination] = {
    "claims of the manifest": examine_claims,
    "headers of the engines": examine_engine_headers,
    "golden vectors": examine_golden,
}
FULL: dict[str, Examination] = {
    "stages": examine_stages,
    "graphs compiled again": examine_compiled_again,
    "steps": examine_steps,
    "native library": examine_native,
    "inputs": examine_inputs,
    "speed": examine_speed,
}
# Of every release, after what these need was made.
LAST: dict[str, Examination] = {"calibration": examine_calibration}
# What `--quick` does not ask for, besides the stages that would have to be compiled again.
NOT_QUICK = (
    *("trajectories of executed actions", "error by denoising step", "latency"),
    *("native members", "what the native library does"),
)


def verify_release(request: Request, on_stage: OnStage = lambda _: None) -> Verification:
    """Measure a release against its golden vectors and against the checkpoint.

    Args:
        request: what to verify, against what.
        on_stage: called with each comparison's name before it is made.

    Raises:
        IntegrityError: the release is not the bytes its manifest says.
        InputError: the release, checkpoint, dataset or gates cannot be read or used.
    """
    on_stage("integrity")
    release = open_release(request.release)
    shown, default, judged_by = read_shown_here(release)
    gates = read_gates(request.gates, default, allow_loose=request.allow_loose)
    trained = Trained(()) if request.golden_only else read_checkpoint(release, request)
    subject = Subject(request, release, shown, gates.limits, trained, on_stage)
    try:
        if not request.golden_only:
            subject.choose()
        checks = [_integrity(release), *trained.checks, *_examined(subject, ALWAYS)]
        if not request.golden_only:
            checks += _examined(subject, FULL)
        checks += _examined(subject, LAST)
    finally:
        subject.close()
    if not request.golden_only:
        checks += _examined(subject, {CLOSED_LOOP: _closed_loop})
    return Verification(
        release.manifest,
        _with_advice(checks, request),
        subject.behind,
        gates.changes,
        (*subject.left_out, *(NOT_QUICK if request.quick else ())),
        request.quick,
        len(subject.samples),
        request.seed,
        tuple(subject.unchecked),
        judged_by,
        power_of(len(subject.samples)),
    )


def _examined(subject: Subject, examinations: dict[str, Examination]) -> list[Check]:
    """One after the other; what takes its process down has failed, and the others go on."""
    checks: list[Check] = []
    for name, examination in examinations.items():
        try:
            checks += examination(subject)
        except CrashedError as error:
            checks.append(Check(name, "runs to its end", 0.0, 1.0, 1, "fail", error.fact))
    return checks


def _integrity(release: Release) -> Check:
    count = len(release.manifest.members)
    return Check("integrity", "members as in the manifest", count, count, count, "pass")


def _with_advice(checks: Sequence[Check], request: Request) -> tuple[Check, ...]:
    """Failed gates with the first stage that differs, and what finds the operator."""
    failed = [check for check in checks if check.verdict == "fail" and " vs " in check.stage]
    if not failed:
        return tuple(checks)
    words = f"the first that differs: {failed[0].stage}"
    if request.checkpoint is not None:
        words += f"; find the operator: libra-edge verify {request.release} --checkpoint "
        words += f"{request.checkpoint} --bisect FOLDER"
    return tuple(
        replace(check, note=f"{check.note}; {words}" if check.note else words)
        if check in failed
        else check
        for check in checks
    )


def _closed_loop(subject: Subject) -> list[Check]:
    request, release = subject.request, subject.release
    if request.closed_loop is None:
        return []
    if request.checkpoint is None:
        return [not_measured(CLOSED_LOOP, "no checkpoint was given")]
    if subject.runtime() is None:
        return [not_measured(CLOSED_LOOP, subject.elsewhere())]
    store = make_writable((request.cache or default_cache()) / "closed-loop", "--cache")
    return closed_loop_checks(
        request.closed_loop,
        request.checkpoint,
        partial(RemoteDriver, release.path, request.time_limit_s),
        release.manifest,
        store,
        subject.on_stage,
    )
