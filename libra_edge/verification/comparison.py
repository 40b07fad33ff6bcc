"""The chain from policy to C ABI, every stage against the one before it, and end to end."""

from __future__ import annotations

from dataclasses import replace

from libra_edge.parity.gates import (
    ENGINE,
    RUNTIME,
    Check,
    compare,
    compare_chain,
    end_to_end,
    largest_error,
    not_measured,
    run_engines,
)
from libra_edge.parity.golden import GOLDEN, compare_golden
from libra_edge.policy.executor import Engines
from libra_edge.verification.details.differences import planner_detail, refiner_detail
from libra_edge.verification.details.smoothness import trajectory_detail
from libra_edge.verification.recompile import with_stages
from libra_edge.verification.result import Behind
from libra_edge.verification.stepping import STAGE as STEPS
from libra_edge.verification.stepping import compare_steps
from libra_edge.verification.subject import Subject

REFERENCE = "checkpoint in LeRobot"
GRAPHS, GRAPHS_GOLDEN = "graphs, simulated", "graphs, simulated vs golden vectors"
Chain = list[tuple[str, Engines]]


def examine_golden(subject: Subject) -> list[Check]:
    """Golden vectors through the C ABI, or through the plain graphs where it does not run."""
    subject.on_stage(GOLDEN)
    release, limits = subject.release, subject.limits
    dims = release.manifest.embodiment.actions
    runtime = subject.runtime()
    if runtime is not None:
        return compare_golden(release, GOLDEN, runtime, dims, limits)
    checks = [not_measured(GOLDEN, subject.elsewhere())]
    if (graphs := subject.graphs()) is not None:
        checks += compare_golden(release, GRAPHS_GOLDEN, graphs, dims, limits)
    return checks


def examine_stages(subject: Subject) -> list[Check]:
    """The chain, as far as it can be measured here, and what cannot."""
    known = len(subject.trained.checks)
    trained = subject.trained = with_stages(
        subject.trained, subject.manifest, subject.recipe, subject.request, subject.on_stage
    )
    subject.left_out += trained.left_out
    checks = list(trained.checks[known:])
    before = subject.reference()
    first: Chain = [] if before is None else [(REFERENCE, before)]
    chain, gaps = _chain(subject, [*first, *trained.stages])
    checks += gaps
    if len(chain) < 2:
        return checks
    found = _compared(subject, chain, of_policy=bool(trained.stages))
    finite = all(check.verdict == "pass" for check in found if check.metric == "finite")
    if finite and not subject.request.quick:
        _more_detail(subject, chain)
    return checks + found


def _chain(subject: Subject, chain: Chain) -> tuple[Chain, list[Check]]:
    """The stages of the policy with those of the release after them."""
    gaps: list[Check] = []
    runtime, engines = subject.runtime(), subject.engines()
    if engines is None:
        gaps.append(not_measured(ENGINE, subject.elsewhere()))
        if (graphs := subject.graphs()) is not None:
            chain.append((GRAPHS, graphs))
    elif not subject.request.quick or runtime is None:
        chain.append((ENGINE, engines))
    if runtime is None:
        gaps.append(not_measured(RUNTIME, subject.elsewhere()))
    else:
        chain.append((RUNTIME, runtime))
    return chain, gaps


def _compared(subject: Subject, chain: Chain, *, of_policy: bool) -> list[Check]:
    """Every stage against the one before it; and what a robot runs against what was trained."""
    samples, dims, limits = subject.samples, subject.dims, subject.limits
    reference = run_engines(chain[0][1], samples)
    checks = compare_chain(chain, samples, dims, limits, subject.on_stage, reference)
    if not of_policy:
        return checks
    stage = end_to_end(chain[-1][0], chain[0][0])
    subject.on_stage(stage)
    # Each refiner after its own planner.
    candidate = run_engines(chain[-1][1], samples)
    bins, seed = subject.bins, subject.request.seed
    planned = planner_detail(reference, candidate, bins, dims, seed) if bins else None
    subject.behind = Behind(
        planner=planned,
        refiner=refiner_detail(reference, candidate, samples, dims, seed),
    )
    largest = largest_error(stage, reference, candidate, dims, limits)
    return [*checks, *compare(stage, reference, candidate, dims, limits), *largest]


def examine_steps(subject: Subject) -> list[Check]:
    """Whole episodes of the C runtime beside the reference executor."""
    engines, runtime = subject.engines(), subject.runtime()
    if subject.truth is None or engines is None or runtime is None:
        return []
    subject.on_stage(STEPS)
    return compare_steps(subject.truth.config, engines, runtime, subject.samples)


def _more_detail(subject: Subject, chain: Chain) -> None:
    """What is no gate: the error by denoising step, and how smooth recorded episodes are driven."""
    checkpoint = subject.truth
    if checkpoint is None or not subject.contract.plans:
        return
    from libra_edge.policy.checkpoint import Checkpoint
    from libra_edge.verification.details.denoising import denoising_detail

    if not isinstance(checkpoint, Checkpoint):
        return

    subject.on_stage("denoising steps")
    graph = subject.release.member("engines/refiner.onnx").read_bytes()
    facts = subject.manifest.engines.refiner
    seed = subject.request.seed
    denoising = denoising_detail(checkpoint.policy, graph, facts, subject.samples, seed)
    trajectory = None
    if subject.recordings is not None:
        subject.on_stage("trajectories")
        trajectory = trajectory_detail(
            checkpoint.config, chain[-1][1], chain[0][1], subject.recordings, seed
        )
    subject.behind = replace(subject.behind, denoising=denoising, trajectory=trajectory)
