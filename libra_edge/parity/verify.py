"""Is a release still the policy it was compiled from? Every stage is measured again.

Without a checkpoint only the release itself can be judged: its bytes, its golden vectors, and
whether the C ABI gives what the engine gives. The comparisons that this leaves out are listed as
not measured. Only those with a checkpoint need the `compile` extra.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.bundle.compatibility import CPU, mismatches, needs_of, this_device
from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.verify import Release, open_release
from libra_edge.catalog import load_recipe
from libra_edge.data.extras import needs_extra
from libra_edge.engines import engine
from libra_edge.engines.base import EnginePair
from libra_edge.errors import ExitCode, IntegrityError
from libra_edge.parity.gates import (
    ENGINE,
    LIMITS,
    POLICY,
    RUNTIME,
    Check,
    Limits,
    Outputs,
    Verdict,
    compare,
    compare_chain,
    compare_end_to_end,
    not_measured,
    run_engines,
)
from libra_edge.parity.samples import Sample, choose_samples
from libra_edge.policy.config import ActionDim
from libra_edge.policy.executor import Engines
from libra_edge.policy.tokenizer import Tokenizer
from libra_edge.runtime import Policy

OnStage = Callable[[str], None]
Array = npt.NDArray[Any]
GOLDEN, AGAINST_CHECKPOINT = "C ABI vs golden vectors", "release vs checkpoint"
GRAPHS, GRAPHS_GOLDEN = "graphs, simulated", "graphs, simulated vs golden vectors"
GOLDEN_INPUTS = ("images", "instruction", "state", "noise")
GOLDEN_OUTPUTS = ("intent", "margin", "actions")
DEFAULT_SAMPLES = 200
# Not the compiler's seed: a gate is worth more on observations it was not passed on before.
DEFAULT_SEED = 1


@dataclass(frozen=True)
class Verification:
    """Every check that was asked for, measured or not."""

    manifest: Manifest
    checks: tuple[Check, ...]

    def count(self, verdict: Verdict) -> int:
        """How many checks ended with this verdict."""
        return sum(check.verdict == verdict for check in self.checks)

    @property
    def exit_code(self) -> ExitCode:
        """A failure counts before a gap, a gap before success."""
        if self.count("fail"):
            return ExitCode.PARITY
        return ExitCode.NOT_MEASURED if self.count("not measured") else ExitCode.OK


def verify_release(
    path: Path,
    checkpoint: Path | None = None,
    data: Path | None = None,
    *,
    samples: int = DEFAULT_SAMPLES,
    seed: int = DEFAULT_SEED,
    golden_only: bool = False,
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
        cache: the compiler's cache; None takes the user's.
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
        checks += _golden(release, GOLDEN, runtime, dims, limits)
        if runtime is None and (graphs := _load_graphs(release)) is not None:
            checks += _golden(release, GRAPHS_GOLDEN, graphs, dims, limits)
        if not golden_only:
            judge = {
                "samples": _samples(release, samples, seed, data),
                "dims": dims,
                "limits": limits,
                "on_stage": on_stage,
            }
            checks += _stages(release, runtime, checkpoint, cache, judge)
    return Verification(manifest, tuple(checks))


def _golden(
    release: Release,
    stage: str,
    runtime: Engines | None,
    dims: Sequence[ActionDim],
    limits: Limits,
) -> list[Check]:
    if runtime is None:
        return [not_measured(stage, _elsewhere(release))]
    arrays = read_golden(release)
    samples = [
        Sample(images, instruction, state, noise, part=0)
        for images, instruction, state, noise in zip(
            *(arrays[name] for name in GOLDEN_INPUTS), strict=True
        )
    ]
    chunk = release.manifest.policy.chunk
    used = arrays["intent"][:, :chunk]
    expected = Outputs(arrays["intent"], arrays["margin"], arrays["actions"], used)
    found = run_engines(runtime, samples, arrays["intent"])
    return compare(stage, expected, found, dims, limits)


def read_golden(release: Release) -> dict[str, Array]:
    """The golden vectors by name, each [G, ...].

    Raises:
        IntegrityError: one is not an array file, or not of the shape that the engines declare.
    """
    planner, refiner = release.manifest.engines.planner, release.manifest.engines.refiner
    # The planner's outputs last: `intent` is stored as the whole plan, not as a refiner's input.
    tensors = (*planner.inputs, *refiner.inputs, *refiner.outputs, *planner.outputs)
    specs = {spec.name: (spec.dtype, spec.shape) for spec in tensors}
    arrays: dict[str, Array] = {}
    for name in (*GOLDEN_INPUTS, *GOLDEN_OUTPUTS):
        try:
            # Mapped: a header that claims more than the file holds is found without allocating.
            array = np.lib.format.open_memmap(release.member(f"golden/{name}.npy"), mode="r")
        except ValueError as error:
            raise _golden_invalid(name, str(error)) from None
        if (array.dtype.name, array.shape[1:]) != specs[name]:
            found = f"{array.dtype.name} {list(array.shape)}"
            raise _golden_invalid(name, f"it is {found}, the engines declare {specs[name]}")
        if len(array) == 0 or len(array) != len(arrays.get("images", array)):
            raise _golden_invalid(name, f"it holds {len(array)} samples")
        arrays[name] = np.asarray(array)
    return arrays


def _golden_invalid(name: str, reason: str) -> IntegrityError:
    return IntegrityError(
        "golden-invalid",
        f"golden/{name}.npy is not what it must be: {reason}.",
        "Do not use this release: compile it again.",
    )


def _samples(release: Release, count: int, seed: int, data: Path | None) -> list[Sample]:
    manifest = release.manifest
    tokenizer = Tokenizer(release.member("tokenizer.json"), manifest.policy.instruction_length)
    return choose_samples(manifest.embodiment, manifest.policy, tokenizer, count, seed, data)


def _stages(
    release: Release,
    runtime: Engines | None,
    checkpoint: Path | None,
    cache: Path | None,
    judge: dict[str, Any],
) -> list[Check]:
    """The chain from policy to C ABI, as far as it can be measured here, and what cannot."""
    checks, chain = _from_checkpoint(release, checkpoint, cache, judge["on_stage"])
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
    if len(chain) > 1:
        checks += compare_chain(chain, **judge)
    if trained and len(chain) > 1:
        checks += compare_end_to_end(chain[0], chain[-1], **judge)
    return checks


def _from_checkpoint(
    release: Release, checkpoint: Path | None, cache: Path | None, on_stage: OnStage
) -> tuple[list[Check], list[tuple[str, Engines]]]:
    """The stages before the release's engines, compiled again from the checkpoint."""
    if checkpoint is None:
        return [not_measured(AGAINST_CHECKPOINT, "no checkpoint was given")], []
    with needs_extra("compile", "Comparing with a checkpoint"):
        import torch

        from libra_edge.compiler.cache import StageCache, default_cache
        from libra_edge.compiler.front import make_graphs
        from libra_edge.compiler.stages import exported_engines, fused_engines, split_engines
        from libra_edge.policy.checkpoint import load_checkpoint
        from libra_edge.policy.torch_controller import TorchEngines
    torch.set_num_threads(1)
    loaded = load_checkpoint(checkpoint)
    same = loaded.sha256 == release.manifest.policy.checkpoint_sha256
    checks = [
        Check(
            "checkpoint",
            "sha256 as in the manifest",
            float(same),
            1.0,
            1,
            "pass" if same else "fail",
            "" if same else f"{checkpoint} is not what this release was compiled from",
        )
    ]
    if not same:
        return [*checks, not_measured(AGAINST_CHECKPOINT, "another checkpoint was given")], []
    policy = (POLICY, TorchEngines(loaded.policy))
    if load_recipe(release.manifest.recipe).quantises:
        # The stages between depend on calibration data; the policy itself is the one that counts.
        return checks, [policy]
    stage_cache = StageCache(cache or default_cache())
    front = make_graphs(loaded, stage_cache, lambda stage, note: on_stage(f"{stage}: {note}"))
    refiner = front.refiners[release.manifest.engines.refiner.form]
    return checks, [
        policy,
        ("split", split_engines(front.split)),
        ("exported", exported_engines(front.exported, front.split.tables)),
        ("fused", fused_engines(front.planner, refiner)),
    ]


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
    """The plain graphs of a release as written, on the CPU: a simulation of what it runs."""
    if find_spec("onnxruntime") is None:
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
