"""Is a release still the policy it was compiled from? Every stage is measured again.

Without a checkpoint only the release itself can be judged: its bytes, its golden vectors, and
whether the C ABI gives what the engine gives. The comparisons that this leaves out are listed as
not measured. Only those with a checkpoint need the `compile` extra.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from libra_edge.binding.policy import Policy
from libra_edge.bundle.compatibility import mismatches, needs_of, this_device
from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.verify import Release, open_release
from libra_edge.catalog import load_recipe
from libra_edge.compiler.cache import default_cache
from libra_edge.errors import ExitCode
from libra_edge.evaluation.non_inferiority import STAGE as CLOSED_LOOP
from libra_edge.evaluation.non_inferiority import ClosedLoop, closed_loop_checks
from libra_edge.limits import ChangedLimit, Limits, read_gates
from libra_edge.parity.gates import (
    ENGINE,
    RUNTIME,
    Check,
    Verdict,
    compare,
    compare_chain,
    compare_edges,
    end_to_end,
    not_measured,
    run_engines,
)
from libra_edge.parity.golden import GOLDEN, compare_golden
from libra_edge.parity.samples import Sample, choose_samples, edge_samples
from libra_edge.paths import StrPath
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
from libra_edge.verification.open_engines import elsewhere, load_engines, load_graphs
from libra_edge.verification.recompile import (
    TOKENIZER,
    Sources,
    Trained,
    read_checkpoint,
    with_stages,
)
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
DEFAULT_SAMPLES, QUICK_SAMPLES = 200, 24
# Not the compiler's seed: a gate is worth more on observations it was not passed on before.
DEFAULT_SEED = 1
# What `--quick` does not ask for, besides the stages that would have to be compiled again.
NOT_QUICK = ("trajectories of executed actions", "error by denoising step", "latency")


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

    release: Release
    runtime: Policy | None
    dims: Sequence[ActionDim]
    samples: Sequence[Sample]
    edges: Sequence[Sample]
    recordings: Sequence[Recording] | None
    limits: Limits
    seed: int
    quick: bool
    on_stage: OnStage


def verify_release(
    path: StrPath,
    checkpoint: StrPath | None = None,
    data: StrPath | None = None,
    *,
    samples: int | None = None,
    seed: int = DEFAULT_SEED,
    golden_only: bool = False,
    quick: bool = False,
    gates: StrPath | None = None,
    allow_loose: bool = False,
    calibrate: StrPath | None = None,
    closed_loop: ClosedLoop | None = None,
    cache: StrPath | None = None,
    on_stage: OnStage = lambda _: None,
) -> Verification:
    """Measure a release against its golden vectors and against the checkpoint.

    Args:
        path: release directory or `.libra` file.
        checkpoint: what it was compiled from; None leaves those comparisons not measured.
        data: LeRobot dataset to take observations from; None makes them up.
        samples: observations per comparison; None takes 200, or 24 if `quick`.
        seed: of the choice of observations, and of the noise.
        golden_only: ask for bytes and golden vectors alone; nothing else counts as missing.
        quick: ask for what needs no compiling, on fewer samples.
        gates: TOML file of limits that replace the recipe's; None takes those.
        allow_loose: take limits that are looser than the recipe's.
        calibrate: what a quantised release was calibrated on, to compile its stages again.
        closed_loop: also run the checkpoint and the release over the same simulated episodes.
        cache: the compiler's cache, and of finished episodes; None takes the user's.
        on_stage: called with each comparison's name before it is made.

    Raises:
        IntegrityError: the release is not the bytes its manifest says.
        InputError: the release, checkpoint, dataset or gates cannot be read or used.
    """
    path = Path(path)
    checkpoint = None if checkpoint is None else Path(checkpoint)
    data = None if data is None else Path(data)
    gates = None if gates is None else Path(gates)
    calibrate = None if calibrate is None else Path(calibrate)
    cache = None if cache is None else Path(cache)
    on_stage("integrity")
    release = open_release(path)
    manifest = release.manifest
    count = len(manifest.members)
    checks = [Check("integrity", "members as in the manifest", count, count, count, "pass")]
    held = read_gates(gates, load_recipe(manifest.recipe).gates, allow_loose=allow_loose)
    limits, dims = held.limits, manifest.embodiment.actions
    with ExitStack() as stack:
        here = not mismatches(needs_of(manifest), this_device())
        runtime = stack.enter_context(Policy(release.path)) if here else None
        on_stage(GOLDEN)
        if runtime is None:
            checks.append(not_measured(GOLDEN, elsewhere(release)))
        else:
            checks += compare_golden(release, GOLDEN, runtime, dims, limits)
        if runtime is None and (graphs := load_graphs(release)) is not None:
            checks += compare_golden(release, GRAPHS_GOLDEN, graphs, dims, limits)
        if golden_only:
            return Verification(manifest, tuple(checks), gates=held.changes)
        trained = read_checkpoint(release, checkpoint)
        # The checkpoint's word counts: what a release says of itself is under test.
        truth = trained.checkpoint
        config = truth.config if truth else manifest.policy
        body = truth.config.embodiment if truth else manifest.embodiment
        tokenizer = truth.tokenizer if truth else _tokenizer(release)
        wanted = samples or (QUICK_SAMPLES if quick else DEFAULT_SAMPLES)
        chosen = choose_samples(body, config, tokenizer, wanted, seed, data)
        edges = edge_samples(body, config, tokenizer, seed)
        recordings = None
        if truth is not None and data is not None and not quick:
            recordings = read_recordings(data, tokenizer, seed)
        sources = Sources(checkpoint, calibrate, cache)
        trained = with_stages(trained, manifest, sources, on_stage, quick=quick)
        subject = _Subject(
            release, runtime, body.actions, chosen, edges, recordings, limits, seed, quick, on_stage
        )
        found, behind = _stages(subject, trained)
    if closed_loop is not None:
        found += _closed_loop(closed_loop, release, checkpoint, cache, on_stage)
    return Verification(
        manifest,
        (*checks, *trained.checks, *found),
        behind,
        held.changes,
        (*trained.left_out, *(NOT_QUICK if quick else ())),
        quick,
        len(chosen),
        seed,
    )


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
    elif not subject.quick or runtime is None:
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
    checks += compare_edges(*chain[-1], subject.edges, _bins(subject, trained))
    finite = all(check.verdict == "pass" for check in found if check.metric == "finite")
    if subject.quick or not finite:
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
    bins = _bins(subject, trained)
    behind = Behind(
        planner=planner_detail(reference, candidate, bins, dims, subject.seed),
        refiner=refiner_detail(reference, candidate, samples, dims, subject.seed),
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
    denoising = denoising_detail(checkpoint.policy, graph, facts, subject.samples, subject.seed)
    trajectory = None
    if subject.recordings is not None:
        subject.on_stage("trajectories")
        trajectory = trajectory_detail(
            checkpoint.config, chain[-1][1], chain[0][1], subject.recordings, subject.seed
        )
    return replace(behind, denoising=denoising, trajectory=trajectory)


def _bins(subject: _Subject, trained: Trained) -> int:
    truth = trained.checkpoint
    return truth.config.bins if truth else subject.release.manifest.policy.bins


def _tokenizer(release: Release) -> Tokenizer:
    return Tokenizer(release.member(TOKENIZER), release.manifest.policy.instruction_length)


def _closed_loop(
    asked: ClosedLoop,
    release: Release,
    checkpoint: Path | None,
    cache: Path | None,
    on_stage: OnStage,
) -> list[Check]:
    manifest = release.manifest
    if checkpoint is None:
        return [not_measured(CLOSED_LOOP, "no checkpoint was given")]
    if mismatches(needs_of(manifest), this_device()):
        return [not_measured(CLOSED_LOOP, elsewhere(release))]
    store = make_writable((cache or default_cache()) / "closed-loop", "--cache")
    return closed_loop_checks(asked, checkpoint, release.path, manifest, store, on_stage)
