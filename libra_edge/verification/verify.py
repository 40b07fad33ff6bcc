"""Is a release still the policy it was compiled from? Every stage is measured again.

Without a checkpoint only the release itself can be judged: its bytes, its golden vectors, and
whether the C ABI gives what the engine gives. The comparisons that this leaves out are listed as
not measured. Only those with a checkpoint need the `compile` extra.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from libra_edge.binding.policy import Policy
from libra_edge.bundle.compatibility import mismatches, needs_of, this_device
from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.verify import Release, open_release
from libra_edge.catalog import load_recipe
from libra_edge.compiler.cache import default_cache
from libra_edge.errors import ExitCode
from libra_edge.evaluation.non_inferiority import STAGE as CLOSED_LOOP
from libra_edge.evaluation.non_inferiority import closed_loop_checks
from libra_edge.limits import ChangedLimit, Limits, Verdict, read_gates
from libra_edge.parity.gates import (
    ENGINE,
    RUNTIME,
    Check,
    compare,
    compare_chain,
    compare_edges,
    end_to_end,
    not_measured,
    run_engines,
)
from libra_edge.parity.golden import GOLDEN, compare_golden
from libra_edge.parity.samples import Sample, choose_samples, edge_samples
from libra_edge.policy.config import ActionDim
from libra_edge.policy.executor import Engines
from libra_edge.policy.tokenizer import Tokenizer
from libra_edge.user_cache import make_writable
from libra_edge.verification.differences import (
    DenoisingDetail,
    PlannerDetail,
    RefinerDetail,
    planner_detail,
    refiner_detail,
)
from libra_edge.verification.latency import Latency, measure_latencies
from libra_edge.verification.native.conformance import native_checks
from libra_edge.verification.open_engines import elsewhere, load_engines, load_graphs
from libra_edge.verification.recompile import (
    TOKENIZER,
    Trained,
    read_checkpoint,
    with_stages,
)
from libra_edge.verification.request import DEFAULT_SEED, Request
from libra_edge.verification.smoothness import (
    Recording,
    TrajectoryDetail,
    read_recordings,
    trajectory_detail,
)
from libra_edge.verification.stepping import STAGE as STEPS
from libra_edge.verification.stepping import compare_steps

if TYPE_CHECKING:
    from libra_edge.policy.checkpoint import Checkpoint

OnStage = Callable[[str], None]
GRAPHS, GRAPHS_GOLDEN = "graphs, simulated", "graphs, simulated vs golden vectors"
# What `--quick` does not ask for, besides the stages that would have to be compiled again.
NOT_QUICK = (
    *("trajectories of executed actions", "error by denoising step", "latency"),
    *("native members", "what the native library does"),
)


@dataclass(frozen=True)
class Behind:
    """What lies behind the checks: end-to-end differences and latencies, where measured."""

    planner: PlannerDetail | None = None
    refiner: RefinerDetail | None = None
    denoising: DenoisingDetail | None = None
    trajectory: TrajectoryDetail | None = None
    latencies: tuple[Latency, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Plain data; None where nothing was measured."""
        details = (self.planner, self.refiner, self.denoising, self.trajectory)
        names = ("planner", "refiner", "denoising", "trajectory")
        return {
            name: detail and detail.model_dump(mode="json")
            for name, detail in zip(names, details, strict=True)
        } | {"latencies": [latency.model_dump(mode="json") for latency in self.latencies]}


@dataclass(frozen=True)
class Verification:
    """Every check that was asked for, measured or not.

    gates: limits that are not the recipe's; left_out: what was not asked for, and is no gap; quick:
    a smaller set of checks, which no release should be gated by; samples: observations used, of
    `seed`.
    """

    manifest: Manifest
    checks: tuple[Check, ...]
    behind: Behind = Behind()
    gates: tuple[ChangedLimit, ...] = ()
    left_out: tuple[str, ...] = ()
    quick: bool = False
    samples: int = 0
    seed: int = DEFAULT_SEED

    def count(self, verdict: Verdict) -> int:
        """How many checks ended with this verdict."""
        return sum(check.verdict == verdict for check in self.checks)

    @property
    def exit_code(self) -> ExitCode:
        """A failure counts before a gap, a gap before success."""
        if self.count("fail"):
            return ExitCode.PARITY
        return ExitCode.NOT_MEASURED if self.count("not measured") else ExitCode.OK


@dataclass(frozen=True)
class _Subject:
    """A release under test, and what it is tested on; without a runtime, not on this machine."""

    request: Request
    release: Release
    runtime: Policy | None
    limits: Limits
    truth: Checkpoint | None
    dims: Sequence[ActionDim]
    bins: int
    samples: Sequence[Sample]
    edges: Sequence[Sample]
    recordings: Sequence[Recording] | None
    on_stage: OnStage


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
    default = load_recipe(release.manifest.recipe).gates
    gates = read_gates(request.gates, default, allow_loose=request.allow_loose)
    with ExitStack() as stack:
        runtime = stack.enter_context(_runtime(release)) if _runs_here(release) else None
        own = [_integrity(release), *_golden(release, runtime, gates.limits, on_stage)]
        if request.golden_only:
            return Verification(release.manifest, tuple(own), gates=gates.changes)
        if not request.quick:
            own += native_checks(release, request.cache, on_stage)
        trained = read_checkpoint(release, request.checkpoint)
        subject = _subject(request, release, runtime, gates.limits, trained.checkpoint, on_stage)
        trained = with_stages(trained, release.manifest, request, on_stage)
        found, behind = _stages(subject, trained)
    found += _closed_loop(request, release, on_stage)
    return Verification(
        release.manifest,
        (*own, *trained.checks, *found),
        behind,
        gates.changes,
        (*trained.left_out, *(NOT_QUICK if request.quick else ())),
        request.quick,
        len(subject.samples),
        request.seed,
    )


def _runs_here(release: Release) -> bool:
    return not mismatches(needs_of(release.manifest), this_device())


def _integrity(release: Release) -> Check:
    count = len(release.manifest.members)
    return Check("integrity", "members as in the manifest", count, count, count, "pass")


def _golden(
    release: Release, runtime: Policy | None, limits: Limits, on_stage: OnStage
) -> list[Check]:
    """Golden vectors through the C ABI, or through the plain graphs where it does not run."""
    on_stage(GOLDEN)
    dims = release.manifest.embodiment.actions
    if runtime is not None:
        return compare_golden(release, GOLDEN, runtime, dims, limits)
    checks = [not_measured(GOLDEN, elsewhere(release))]
    if (graphs := load_graphs(release)) is not None:
        checks += compare_golden(release, GRAPHS_GOLDEN, graphs, dims, limits)
    return checks


def _subject(
    request: Request,
    release: Release,
    runtime: Policy | None,
    limits: Limits,
    truth: Checkpoint | None,
    on_stage: OnStage,
) -> _Subject:
    """Choose observations; data that cannot be used is refused before anything is compiled."""
    manifest, data, seed = release.manifest, request.data, request.seed
    # The checkpoint's word counts: what a release says of itself is under test.
    policy = truth.config if truth else manifest.policy
    body = truth.config.embodiment if truth else manifest.embodiment
    tokenizer = truth.tokenizer if truth else _tokenizer(release)
    samples = choose_samples(body, policy, tokenizer, request.count, seed, data)
    recordings = None
    if truth is not None and data is not None and not request.quick:
        recordings = read_recordings(data, body, tokenizer, seed)
    edges = edge_samples(body, policy, tokenizer, seed)
    return _Subject(
        request,
        release,
        runtime,
        limits,
        truth,
        body.actions,
        policy.bins,
        samples,
        edges,
        recordings,
        on_stage,
    )


def _runtime(release: Release) -> Policy:
    """The release through the C ABI, whatever it says of itself: that is under test."""
    return Policy(release.path, allow_failed=True, allow_random_weights=True)


def _stages(subject: _Subject, trained: Trained) -> tuple[list[Check], Behind]:
    """The chain from policy to C ABI, as far as it can be measured here, and what cannot."""
    release, runtime = subject.release, subject.runtime
    checks: list[Check] = []
    chain = list(trained.stages)
    engines = load_engines(release)
    if engines is None:
        checks.append(not_measured(ENGINE, elsewhere(release)))
        if (graphs := load_graphs(release)) is not None:
            chain.append((GRAPHS, graphs))
    elif not subject.request.quick or runtime is None:
        chain.append((ENGINE, engines))
    if runtime is None:
        checks.append(not_measured(RUNTIME, elsewhere(release)))
    else:
        chain.append((RUNTIME, runtime))
    if not chain:
        return checks, Behind()
    found, behind = _compared(subject, trained, chain)
    checks += found
    if trained.checkpoint is not None and engines is not None and runtime is not None:
        subject.on_stage(STEPS)
        checks += compare_steps(trained.checkpoint.config, engines, runtime, subject.samples)
    subject.on_stage("edge observations")
    checks += compare_edges(*chain[-1], subject.edges, subject.bins)
    finite = all(check.verdict == "pass" for check in found if check.metric == "finite")
    if subject.request.quick or not finite:
        return checks, behind
    if trained.checkpoint is not None:
        behind = _more_detail(subject, trained.checkpoint, chain, behind)
    if runtime is not None:
        subject.on_stage("latency")
        behind = replace(behind, latencies=measure_latencies(runtime, subject.samples))
    return checks, behind


def _compared(
    subject: _Subject, trained: Trained, chain: list[tuple[str, Engines]]
) -> tuple[list[Check], Behind]:
    """Every stage against the one before it; and what a robot runs against what was trained."""
    if len(chain) < 2:
        return [], Behind()
    samples, dims, limits = subject.samples, subject.dims, subject.limits
    reference = run_engines(chain[0][1], samples)
    checks = compare_chain(chain, samples, dims, limits, subject.on_stage, reference)
    if not trained.stages:
        return checks, Behind()
    stage = end_to_end(chain[-1][0], chain[0][0])
    subject.on_stage(stage)
    # Each refiner after its own planner.
    candidate = run_engines(chain[-1][1], samples)
    bins = subject.bins
    behind = Behind(
        planner=planner_detail(reference, candidate, bins, dims, subject.request.seed),
        refiner=refiner_detail(reference, candidate, samples, dims, subject.request.seed),
    )
    return [*checks, *compare(stage, reference, candidate, dims, limits)], behind


def _more_detail(
    subject: _Subject, checkpoint: Checkpoint, chain: list[tuple[str, Engines]], behind: Behind
) -> Behind:
    """What is no gate: the error by denoising step, and how smooth recorded episodes are driven."""
    from libra_edge.verification.denoising import denoising_detail

    subject.on_stage("denoising steps")
    graph = subject.release.member("engines/refiner.onnx").read_bytes()
    facts = subject.release.manifest.engines.refiner
    seed = subject.request.seed
    denoising = denoising_detail(checkpoint.policy, graph, facts, subject.samples, seed)
    trajectory = None
    if subject.recordings is not None:
        subject.on_stage("trajectories")
        trajectory = trajectory_detail(
            checkpoint.config, chain[-1][1], chain[0][1], subject.recordings, seed
        )
    return replace(behind, denoising=denoising, trajectory=trajectory)


def _tokenizer(release: Release) -> Tokenizer:
    return Tokenizer(release.member(TOKENIZER), release.manifest.policy.instruction_length)


def _closed_loop(request: Request, release: Release, on_stage: OnStage) -> list[Check]:
    if request.closed_loop is None:
        return []
    if request.checkpoint is None:
        return [not_measured(CLOSED_LOOP, "no checkpoint was given")]
    if not _runs_here(release):
        return [not_measured(CLOSED_LOOP, elsewhere(release))]
    store = make_writable((request.cache or default_cache()) / "closed-loop", "--cache")
    return closed_loop_checks(
        request.closed_loop,
        request.checkpoint,
        release.path,
        release.manifest,
        store,
        on_stage,
    )
