"""The checkpoint's side of a verification: its policy, and its graphs compiled again.

Whatever needs torch is imported when it is called: golden vectors are verified without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.verify import Release
from libra_edge.catalog import HIGH, Recipe, load_recipe
from libra_edge.data.extras import needs_extra
from libra_edge.errors import InputError
from libra_edge.parity.gates import FUSED, POLICY, Check, Verdict, not_measured
from libra_edge.paths import to_paths
from libra_edge.policy.executor import Engines

if TYPE_CHECKING:
    from libra_edge.compiler.cache import StageCache
    from libra_edge.compiler.graphs.make_graphs import Front
    from libra_edge.compiler.quantization.assign import Precisions
    from libra_edge.compiler.quantization.calibration_data import CalibrationData
    from libra_edge.compiler.quantization.quantize import Quantized
    from libra_edge.policy.checkpoint import Checkpoint

AGAINST_CHECKPOINT = "release vs checkpoint"
TOKENIZER = "tokenizer.json"
STAGES_BETWEEN = "stages in between, compiled again, each against the one before it"


@dataclass(frozen=True)
class Sources:
    """Where to compile again from.

    checkpoint: None if none was given; calibrate: LeRobot dataset that a quantised release was
    calibrated on; cache: the compiler's, None takes the user's.
    """

    checkpoint: Path | None
    calibrate: Path | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        """Take paths as text too."""
        to_paths(self)


@dataclass(frozen=True)
class Trained:
    """What a checkpoint gives to compare with.

    checkpoint: None where it was not given or is not the release's; stages: names and engines in
    the order the data flows, the policy's own first; left_out: stages that were not compiled again,
    and why.
    """

    checks: tuple[Check, ...]
    checkpoint: Checkpoint | None = None
    stages: tuple[tuple[str, Engines], ...] = ()
    left_out: tuple[str, ...] = ()


def read_checkpoint(release: Release, path: Path | None) -> Trained:
    """Hold what the release says of itself against the checkpoint; no stages yet.

    Args:
        release: what is verified.
        path: the checkpoint; None leaves everything not measured.
    """
    if path is None:
        return Trained((not_measured(AGAINST_CHECKPOINT, "no checkpoint was given"),))
    with needs_extra("compile", "Comparing with a checkpoint"):
        import torch

        from libra_edge.compiler.release.facts import policy_facts
        from libra_edge.policy.checkpoint import load_checkpoint
    torch.set_num_threads(1)
    loaded, manifest = load_checkpoint(path), release.manifest
    same = loaded.sha256 == manifest.policy.checkpoint_sha256
    other = f"{path} is not what this release was compiled from"
    checks = [_as_checkpoint("sha256 as in the manifest", same, other)]
    if not same:
        gap = not_measured(AGAINST_CHECKPOINT, "another checkpoint was given")
        return Trained((*checks, gap))
    facts = policy_facts(loaded.config, loaded.sha256)
    contract = manifest.policy == facts and manifest.embodiment == loaded.config.embodiment
    words = release.member(TOKENIZER).read_bytes() == (loaded.path / TOKENIZER).read_bytes()
    checks.append(_as_checkpoint("policy and robot", contract, "the manifest says otherwise"))
    checks.append(_as_checkpoint("tokenizer", words, f"{TOKENIZER} differs"))
    return Trained(tuple(checks), loaded)


def with_stages(
    trained: Trained,
    manifest: Manifest,
    sources: Sources,
    on_stage: Callable[[str], None],
    *,
    quick: bool = False,
) -> Trained:
    """The same with the policy's engines, and those of its graphs compiled again.

    Args:
        trained: from `read_checkpoint`.
        manifest: the release's.
        sources: the checkpoint, and what else compiling takes.
        on_stage: called with what is going on.
        quick: take the policy alone, and compile nothing.
    """
    loaded = trained.checkpoint
    if loaded is None:
        return trained
    from libra_edge.compiler.graphs.staged_engines import (
        exported_engines,
        fused_engines,
        split_engines,
    )
    from libra_edge.evaluation.torch_controller import TorchEngines

    policy: tuple[str, Engines] = (POLICY, TorchEngines(loaded.policy))
    if quick:
        return replace(trained, stages=(policy,), left_out=(STAGES_BETWEEN,))
    if load_recipe(manifest.recipe).quantizes and sources.calibrate is None:
        # They depend on calibration data; the policy itself is the one that counts.
        why = f"{STAGES_BETWEEN} (they need --calibrate DATASET)"
        return replace(trained, stages=(policy,), left_out=(why,))
    quantized, front = graphs_again(manifest, loaded, sources, on_stage)
    stages: tuple[tuple[str, Engines], ...] = (
        policy,
        *((("quantised", TorchEngines(quantized.policy)),) if quantized else ()),
        ("split", split_engines(front.split)),
        ("exported", exported_engines(front.exported, front.split.tables)),
        (FUSED, fused_engines(front.planner, front.refiners[manifest.engines.refiner.form])),
    )
    return replace(trained, stages=stages)


def graphs_again(
    manifest: Manifest, checkpoint: Checkpoint, sources: Sources, on_stage: Callable[[str], None]
) -> tuple[Quantized | None, Front]:
    """The policy as the recipe rounds it, None where it does not, and the plain graphs of that.

    Raises:
        InputError: the recipe needs calibration data, and it was not given or is not the release's.
    """
    from libra_edge.compiler.cache import StageCache, default_cache
    from libra_edge.compiler.graphs.make_graphs import make_graphs

    cache = StageCache(sources.cache or default_cache())
    quantized = _quantized_again(manifest, checkpoint, sources, cache)

    def say(stage: str, note: str) -> None:
        on_stage(f"{stage}: {note}")

    return quantized, make_graphs(checkpoint, cache, say, quantized)


def _quantized_again(
    manifest: Manifest, checkpoint: Checkpoint, sources: Sources, cache: StageCache
) -> Quantized | None:
    from libra_edge.compiler.quantization.assign import choose_precisions
    from libra_edge.compiler.quantization.quantize import in_half, quantize
    from libra_edge.engines import engine

    recipe = load_recipe(manifest.recipe)
    if recipe.precision == "fp16":
        return in_half(checkpoint)
    if not recipe.quantizes:
        return None
    if sources.calibrate is None:
        raise InputError(
            "calibration-data-needed",
            f"The release is of recipe {recipe.name!r}, whose graphs depend on calibration data.",
            "Name the data it was calibrated on: --calibrate DATASET.",
        )
    data = _calibration_again(manifest, checkpoint, sources.calibrate)
    decided = {d.subject: d.choice for d in manifest.decisions}
    built = manifest.provision or manifest.engines.planner
    form = engine(built.kind).qdq
    wanted = choose_precisions(checkpoint.policy, recipe, form)
    kept: Precisions = {
        name: precision if str(precision) == decided.get(name) else HIGH
        for name, precision in wanted.items()
    }
    quantized = quantize(checkpoint, recipe, data, form, cache, kept)
    _require_same_ranges(manifest, recipe, quantized)
    return quantized


def _require_same_ranges(manifest: Manifest, recipe: Recipe, quantized: Quantized) -> None:
    """Refuse to hold a release against graphs that another recipe or compiler would have made."""
    from libra_edge.compiler.release.facts import range_words

    reasons = {d.subject: d.reason for d in manifest.decisions}
    for name, precision in quantized.precisions.items():
        found = quantized.ranges.get(name)
        if found is None or precision.activations in ("fp32", "fp16"):
            continue
        if range_words(found, recipe) not in reasons.get(name, ""):
            raise InputError(
                "calibration-differs",
                f"Calibrating again gives {name} {range_words(found, recipe)}; the manifest says: "
                f"{reasons.get(name, 'nothing')}.",
                "Use the libra-edge that compiled the release, or leave out --calibrate.",
            )


def _calibration_again(
    manifest: Manifest, checkpoint: Checkpoint, calibrate: Path
) -> CalibrationData:
    """The frames that the manifest lists, if they are still what they were."""
    from libra_edge.compiler.quantization.calibration_data import open_calibration_data

    source = next((d for d in manifest.decisions if d.subject == "calibration data"), None)
    listed = [d.choice for d in manifest.decisions if d.subject.startswith("calibration frames")]
    count = sum(len(choice.split()) for choice in listed)
    if source is not None and count:
        data = open_calibration_data(calibrate, None, checkpoint, count)
        if source.reason.endswith(data.sha256):
            return data
    raise InputError(
        "calibration-data-differs",
        f"{calibrate} is not what this release was calibrated on.",
        f"Name what the manifest names: {source.choice if source else 'no dataset'}.",
    )


def _as_checkpoint(metric: str, passed: bool, otherwise: str) -> Check:
    verdict: Verdict = "pass" if passed else "fail"
    return Check("checkpoint", metric, float(passed), 1.0, 1, verdict, "" if passed else otherwise)
