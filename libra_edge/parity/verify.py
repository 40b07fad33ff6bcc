"""Is a release still the policy it was compiled from? Every stage is measured again.

Without a checkpoint only the release itself can be judged: its bytes, its golden vectors, and
whether the C ABI gives what the engine gives. The comparisons that this leaves out are listed as
not measured. Only those with a checkpoint need the `compile` extra.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from libra_edge.bundle.compatibility import CPU, mismatches, needs_of, this_device
from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.members import APART
from libra_edge.bundle.verify import Release, open_release
from libra_edge.catalog import load_recipe
from libra_edge.compiler.cache import default_cache
from libra_edge.data.extras import needs_extra
from libra_edge.engines import engine
from libra_edge.engines.base import EnginePair
from libra_edge.errors import ExitCode
from libra_edge.parity.detail import PlannerDetail, RefinerDetail, planner_detail, refiner_detail
from libra_edge.parity.gates import (
    ENGINE,
    LIMITS,
    POLICY,
    RUNTIME,
    Check,
    Limits,
    Verdict,
    compare,
    compare_chain,
    compare_edges,
    end_to_end,
    not_measured,
    run_engines,
)
from libra_edge.parity.golden import GOLDEN, compare_golden
from libra_edge.parity.latency import Latency, measure_latencies
from libra_edge.parity.non_inferiority import STAGE as CLOSED_LOOP
from libra_edge.parity.non_inferiority import ClosedLoop, closed_loop_checks
from libra_edge.parity.samples import Sample, choose_samples, edge_samples
from libra_edge.parity.steps import STAGE as STEPS
from libra_edge.parity.steps import compare_steps
from libra_edge.policy.config import ActionDim, PolicyConfig
from libra_edge.policy.executor import Engines
from libra_edge.policy.tokenizer import Tokenizer
from libra_edge.runtime import Policy

OnStage = Callable[[str], None]
TOKENIZER = "tokenizer.json"
AGAINST_CHECKPOINT = "release vs checkpoint"
GRAPHS, GRAPHS_GOLDEN = "graphs, simulated", "graphs, simulated vs golden vectors"
DEFAULT_SAMPLES = 200
# Not the compiler's seed: a gate is worth more on observations it was not passed on before.
DEFAULT_SEED = 1


@dataclass(frozen=True)
class Behind:
    """What lies behind the checks: end-to-end differences and latencies, where measured."""

    planner: PlannerDetail | None = None
    refiner: RefinerDetail | None = None
    latencies: tuple[Latency, ...] = ()


@dataclass(frozen=True)
class Verification:
    """Every check that was asked for, measured or not."""

    manifest: Manifest
    checks: tuple[Check, ...]
    behind: Behind = Behind()

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
    samples: Sequence[Sample]
    limits: Limits
    seed: int
    on_stage: OnStage

    @property
    def dims(self) -> Sequence[ActionDim]:
        return self.release.manifest.embodiment.actions


def verify_release(
    path: Path,
    checkpoint: Path | None = None,
    data: Path | None = None,
    *,
    samples: int = DEFAULT_SAMPLES,
    seed: int = DEFAULT_SEED,
    golden_only: bool = False,
    closed_loop: ClosedLoop | None = None,
    cache: Path | None = None,
    on_stage: OnStage = lambda _: None,
) -> Verification:
    """Measure a release against its golden vectors and against the checkpoint.

    Args:
        path: release directory or `.libra` file.
        checkpoint: what it was compiled from; None leaves those comparisons not measured.
        data: LeRobot dataset to take observations from; None makes them up.
        samples: observations per comparison.
        seed: of the choice of observations, and of the noise.
        golden_only: ask for bytes and golden vectors alone; nothing else counts as missing.
        closed_loop: also run the checkpoint and the release over the same simulated episodes.
        cache: the compiler's cache, and of finished episodes; None takes the user's.
        on_stage: called with each comparison's name before it is made.

    Raises:
        IntegrityError: the release is not the bytes its manifest says.
        InputError: the release, checkpoint or dataset cannot be read.
    """
    on_stage("integrity")
    release = open_release(path)
    manifest = release.manifest
    count = len(manifest.members)
    checks = [Check("integrity", "members as in the manifest", count, count, count, "pass")]
    limits = LIMITS[load_recipe(manifest.recipe).name]
    dims = manifest.embodiment.actions
    with ExitStack() as stack:
        here = not mismatches(needs_of(manifest), this_device())
        runtime = stack.enter_context(Policy(release.path)) if here else None
        on_stage(GOLDEN)
        if runtime is None:
            checks.append(not_measured(GOLDEN, _elsewhere(release)))
        else:
            checks += compare_golden(release, GOLDEN, runtime, dims, limits)
        if runtime is None and (graphs := _load_graphs(release)) is not None:
            checks += compare_golden(release, GRAPHS_GOLDEN, graphs, dims, limits)
        if golden_only:
            return Verification(manifest, tuple(checks))
        subject = _Subject(
            release, runtime, _samples(release, samples, seed, data), limits, seed, on_stage
        )
        found, behind = _stages(subject, checkpoint, cache)
    if closed_loop is not None:
        found += _closed_loop(closed_loop, release, checkpoint, cache, on_stage)
    return Verification(manifest, (*checks, *found), behind)


def _samples(release: Release, count: int, seed: int, data: Path | None) -> list[Sample]:
    manifest = release.manifest
    tokenizer = Tokenizer(release.member(TOKENIZER), manifest.policy.instruction_length)
    return choose_samples(manifest.embodiment, manifest.policy, tokenizer, count, seed, data)


def _stages(
    subject: _Subject, checkpoint: Path | None, cache: Path | None
) -> tuple[list[Check], Behind]:
    """The chain from policy to C ABI, as far as it can be measured here, and what cannot."""
    release, runtime, samples = subject.release, subject.runtime, subject.samples
    checks, chain, config = _from_checkpoint(release, checkpoint, cache, subject.on_stage)
    trained = len(chain) > 0
    engines = _load_engines(release)
    if engines is None:
        checks.append(not_measured(ENGINE, _elsewhere(release)))
        if (graphs := _load_graphs(release)) is not None:
            chain.append((GRAPHS, graphs))
    else:
        chain.append((ENGINE, engines))
    if runtime is None:
        checks.append(not_measured(RUNTIME, _elsewhere(release)))
    else:
        chain.append((RUNTIME, runtime))
    behind = Behind()
    if len(chain) > 1:
        checks += compare_chain(chain, samples, subject.dims, subject.limits, subject.on_stage)
    if trained and len(chain) > 1:
        found, behind = _end_to_end(subject, chain[0], chain[-1])
        checks += found
    if config is not None and engines is not None and runtime is not None:
        subject.on_stage(STEPS)
        checks += compare_steps(config, engines, runtime, samples)
    if chain:
        subject.on_stage("edge observations")
        tokenizer = Tokenizer(release.member(TOKENIZER), release.manifest.policy.instruction_length)
        edges = edge_samples(
            release.manifest.embodiment, release.manifest.policy, tokenizer, subject.seed
        )
        checks += compare_edges(*chain[-1], edges, release.manifest.policy.bins)
    if runtime is not None:
        subject.on_stage("latency")
        behind = replace(behind, latencies=measure_latencies(runtime, samples))
    return checks, behind


def _end_to_end(
    subject: _Subject, first: tuple[str, Engines], last: tuple[str, Engines]
) -> tuple[list[Check], Behind]:
    """Hold what a robot runs against what was trained, each refiner after its own planner."""
    stage = end_to_end(last[0], first[0])
    subject.on_stage(stage)
    reference, candidate = (run_engines(run, subject.samples) for _, run in (first, last))
    dims, bins = subject.dims, subject.release.manifest.policy.bins
    behind = Behind(
        planner=planner_detail(reference, candidate, bins, dims, subject.seed),
        refiner=refiner_detail(reference, candidate, subject.samples, dims, subject.seed),
    )
    return compare(stage, reference, candidate, dims, subject.limits), behind


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
        return [not_measured(CLOSED_LOOP, _elsewhere(release))]
    store = (cache or default_cache()) / "closed-loop"
    return closed_loop_checks(asked, checkpoint, release.path, manifest, store, on_stage)


def _from_checkpoint(
    release: Release, checkpoint: Path | None, cache: Path | None, on_stage: OnStage
) -> tuple[list[Check], list[tuple[str, Engines]], PolicyConfig | None]:
    """The stages before the release's engines, compiled again from the checkpoint."""
    if checkpoint is None:
        return [not_measured(AGAINST_CHECKPOINT, "no checkpoint was given")], [], None
    with needs_extra("compile", "Comparing with a checkpoint"):
        import torch

        from libra_edge.compiler.cache import StageCache
        from libra_edge.compiler.facts import policy_facts
        from libra_edge.compiler.front import make_graphs
        from libra_edge.compiler.stages import exported_engines, fused_engines, split_engines
        from libra_edge.policy.checkpoint import load_checkpoint
        from libra_edge.policy.torch_controller import TorchEngines
    torch.set_num_threads(1)
    loaded = load_checkpoint(checkpoint)
    manifest = release.manifest
    same = loaded.sha256 == manifest.policy.checkpoint_sha256
    other = f"{checkpoint} is not what this release was compiled from"
    checks = [_as_checkpoint("sha256 as in the manifest", same, other)]
    if not same:
        return [*checks, not_measured(AGAINST_CHECKPOINT, "another checkpoint was given")], [], None
    facts = policy_facts(loaded.config, loaded.sha256)
    contract = manifest.policy == facts and manifest.embodiment == loaded.config.embodiment
    words = release.member(TOKENIZER).read_bytes() == (checkpoint / TOKENIZER).read_bytes()
    checks.append(_as_checkpoint("policy and robot", contract, "the manifest says otherwise"))
    checks.append(_as_checkpoint("tokenizer", words, f"{TOKENIZER} differs"))
    policy = (POLICY, TorchEngines(loaded.policy))
    if load_recipe(release.manifest.recipe).quantises:
        # The stages between depend on calibration data; the policy itself is the one that counts.
        return checks, [policy], loaded.config
    stage_cache = StageCache(cache or default_cache())
    front = make_graphs(loaded, stage_cache, lambda stage, note: on_stage(f"{stage}: {note}"))
    refiner = front.refiners[release.manifest.engines.refiner.form]
    chain: list[tuple[str, Engines]] = [
        policy,
        ("split", split_engines(front.split)),
        ("exported", exported_engines(front.exported, front.split.tables)),
        ("fused", fused_engines(front.planner, refiner)),
    ]
    return checks, chain, loaded.config


def _as_checkpoint(metric: str, passed: bool, otherwise: str) -> Check:
    verdict: Verdict = "pass" if passed else "fail"
    return Check("checkpoint", metric, float(passed), 1.0, 1, verdict, "" if passed else otherwise)


def _load_engines(release: Release) -> Engines | None:
    """The release's engines as Python's ONNX Runtime runs them; None where it is not there."""
    if find_spec("onnxruntime") is None:
        return None
    facts = (release.manifest.engines.planner, release.manifest.engines.refiner)
    if not all(engine(fact.kind).is_available(fact.provider) for fact in facts):
        return None
    return EnginePair(
        *(
            engine(fact.kind).load(
                release.member(fact.member).read_bytes(), fact.provider, fact.session_options
            )
            for fact in facts
        )
    )


def _load_graphs(release: Release) -> Engines | None:
    """The plain graphs of a release as written, on the CPU: a simulation of what it runs.

    None where there is no ONNX Runtime, and for graphs whose weights lie beside them: those are
    simulated while compiling, and take minutes.
    """
    if find_spec("onnxruntime") is None or release.manifest.members.keys() & APART.keys():
        return None
    kind = engine("onnxruntime")
    planner, refiner = (release.member(f"engines/{n}.onnx") for n in ("planner", "refiner"))
    return EnginePair(
        kind.load(planner.read_bytes(), CPU, {}, optimise=False),
        kind.load(refiner.read_bytes(), CPU, {}, optimise=False),
    )


def _elsewhere(release: Release) -> str:
    found = mismatches(needs_of(release.manifest), this_device())
    return found[0].sentence if found else "this machine has no ONNX Runtime for Python"
