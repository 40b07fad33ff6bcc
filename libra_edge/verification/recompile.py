"""The checkpoint's side of a verification: its policy, and its graphs compiled again.

Whatever needs torch is imported when it is called: golden vectors are verified without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from libra_edge.bundle.engine_facts import Calibration
from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.verify import Release
from libra_edge.catalog import HIGH, LayerPrecision, Recipe
from libra_edge.data.extras import needs_extra
from libra_edge.errors import InputError
from libra_edge.limits import Verdict
from libra_edge.parity.gates import POLICY, Check, not_measured
from libra_edge.policy.executor import Engines
from libra_edge.verification.request import Request

if TYPE_CHECKING:
    from libra_edge.compiler.cache import StageCache
    from libra_edge.compiler.graphs.make_graphs import Front
    from libra_edge.compiler.quantization.assign import Precisions
    from libra_edge.compiler.quantization.calibration_data import CalibrationData
    from libra_edge.compiler.quantization.quantize import Quantized
    from libra_edge.policy.imported import AnyCheckpoint

AGAINST_CHECKPOINT = "release vs checkpoint"
TOKENIZER = "tokenizer.json"
STAGES_BETWEEN = "stages in between (split, exported, fused), compiled again, one by one"
NOT_RECORDED = "its manifest has no table of what it was calibrated on"


@dataclass(frozen=True)
class Trained:
    """What a checkpoint gives to compare with.

    checkpoint: None where it was not given or is not the release's; stages: names and engines in
    the order the data flows, the policy's own first; front: the graphs of the last one;
    calibrated: what calibrating again gave; left_out: stages that were not compiled again, and why.
    """

    checks: tuple[Check, ...]
    checkpoint: AnyCheckpoint | None = None
    stages: tuple[tuple[str, Engines], ...] = ()
    front: Front | None = None
    calibrated: Calibrated | None = None
    left_out: tuple[str, ...] = ()


def read_checkpoint(release: Release, request: Request) -> Trained:
    """Hold what the release says of itself against the checkpoint; no stages yet.

    Args:
        release: what is verified.
        request: names the checkpoint; without one everything is left not measured.
    """
    path = request.checkpoint
    if path is None:
        return Trained((not_measured(AGAINST_CHECKPOINT, "no checkpoint was given"),))
    with needs_extra("compile", "Comparing with a checkpoint"):
        import torch

        from libra_edge.compiler.import_folder import read_any
    torch.set_num_threads(1)
    loaded = read_any(
        path,
        robot=request.robot,
        data=request.data,
        tokenizer=request.tokenizer,
        vlm_config=request.vlm_config,
    )
    manifest = release.manifest
    same = loaded.sha256 == manifest.policy.checkpoint_sha256
    beside = {"--robot": request.robot, "--tokenizer": request.tokenizer}
    beside["--vlm-config"] = request.vlm_config
    given = " with ".join([str(path), *(f"{o} {p}" for o, p in beside.items() if p is not None)])
    other = f"{given} is not what this release was compiled from"
    checks = [_as_checkpoint("sha256 as in the manifest", same, other)]
    if loaded.tokenizer is not None and TOKENIZER in manifest.members:
        words = release.member(TOKENIZER).read_bytes() == loaded.tokenizer.text.encode()
        checks.append(_as_checkpoint("tokenizer", words, f"{TOKENIZER} differs"))
    if not same:
        gap = not_measured(AGAINST_CHECKPOINT, "another checkpoint was given")
        return Trained((*checks, gap))
    return Trained(tuple(checks), loaded)


def with_stages(
    trained: Trained,
    manifest: Manifest,
    recipe: Recipe,
    request: Request,
    on_stage: Callable[[str], None],
) -> Trained:
    """The same with the policy's engines, and those of its graphs compiled again.

    Args:
        trained: from `read_checkpoint`.
        manifest: the release's.
        recipe: the one that its graphs show.
        request: what is verified against what; a quick one compiles nothing.
        on_stage: called with what is going on.
    """
    loaded = trained.checkpoint
    if loaded is None:
        return trained
    from libra_edge.compiler.graphs.staged_engines import stages
    from libra_edge.evaluation.torch_controller import torch_engines

    policy = replace(trained, stages=((POLICY, torch_engines(loaded.policy)),))
    if request.quick:
        return replace(policy, left_out=(STAGES_BETWEEN,))
    if recipe.quantizes:
        # The stages depend on calibration data; the policy itself is the one that counts.
        if request.calibrate is None:
            why = f"{STAGES_BETWEEN} (they need --calibrate DATASET)"
            return replace(policy, left_out=(why,))
        if manifest.calibration is None:
            gap = not_measured(STAGES_BETWEEN, NOT_RECORDED)
            return replace(policy, checks=(*trained.checks, gap))
    quantized, front, data = graphs_again(manifest, recipe, loaded, request, on_stage)
    form = manifest.engines.refiner.form
    chain = stages(front, form, loaded.policy, quantized.policy if quantized else None)
    calibrated = None if quantized is None or data is None else Calibrated(quantized, data)
    return replace(trained, stages=tuple(chain), front=front, calibrated=calibrated)


class Calibrated(NamedTuple):
    """A policy with its ranges, and the data that they were found on."""

    quantized: Quantized
    data: CalibrationData


class Again(NamedTuple):
    """A checkpoint compiled again.

    quantized: the policy as the recipe rounds it, None where it does not; front: its plain graphs;
    data: what its ranges were found on, None where it has none.
    """

    quantized: Quantized | None
    front: Front
    data: CalibrationData | None


def graphs_again(
    manifest: Manifest,
    recipe: Recipe,
    checkpoint: AnyCheckpoint,
    request: Request,
    on_stage: Callable[[str], None],
) -> Again:
    """Round and export a checkpoint as a release says that it was.

    Raises:
        InputError: the recipe needs calibration data, and it was not given or is not the release's.
    """
    from libra_edge.compiler.cache import StageCache, default_cache
    from libra_edge.compiler.graphs.fuse import FORMS
    from libra_edge.compiler.graphs.make_graphs import make_graphs
    from libra_edge.policy.imported import is_heavy

    cache = StageCache(request.cache or default_cache())
    quantized, data = _quantized_again(manifest, recipe, checkpoint, request.calibrate, cache)

    def say(stage: str, note: str) -> None:
        on_stage(f"{stage}: {note}")

    # As compiling makes them, so that the cache has them.
    forms = (manifest.engines.refiner.form,) if is_heavy(checkpoint) else FORMS
    return Again(quantized, make_graphs(checkpoint, cache, say, quantized, forms), data)


def _quantized_again(
    manifest: Manifest,
    recipe: Recipe,
    checkpoint: AnyCheckpoint,
    calibrate: Path | None,
    cache: StageCache,
) -> tuple[Quantized | None, CalibrationData | None]:
    from libra_edge.compiler.quantization.assign import choose_precisions
    from libra_edge.compiler.quantization.quantize import as_the_recipe_says, quantize
    from libra_edge.engines import engine

    form = engine((manifest.provision or manifest.engines.refiner).kind).qdq
    if not recipe.quantizes:
        return as_the_recipe_says(checkpoint, recipe, None, form, cache), None
    recorded = _recorded(manifest)
    if recorded.algorithm != recipe.algorithm:
        raise _differs(f"Recipe {recipe.name!r} is {recipe.algorithm} here", recorded.algorithm)
    data = _calibration_again(recorded, checkpoint, calibrate)
    wanted = choose_precisions(checkpoint.policy, recipe, form)
    kept: Precisions = {
        name: _as_recorded(precision, _precision(recorded, name))
        for name, precision in wanted.items()
    }
    quantized = quantize(checkpoint, recipe, data, form, cache, kept)
    return quantized, data


def _recorded(manifest: Manifest) -> Calibration:
    if manifest.calibration is None:
        raise InputError(
            "calibration-not-recorded",
            f"{manifest.name} was compiled by libra-edge {manifest.tools.get('libra-edge', '?')}: "
            f"{NOT_RECORDED}.",
            "Compile it again with this libra-edge, or leave out what needs its graphs.",
        )
    return manifest.calibration


def _as_recorded(wanted: LayerPrecision, recorded: str | None) -> LayerPrecision:
    """What became of a layer: the recipe's word or high precision, between floats as recorded."""
    for rest in ("fp16", "fp32"):
        for precision in (wanted.beside(rest), HIGH.beside(rest)):
            if str(precision) == recorded:
                return precision
    return HIGH


def _precision(recorded: Calibration, name: str) -> str | None:
    return recorded.layers[name].precision if name in recorded.layers else None


def require_same_ranges(manifest: Manifest, quantized: Quantized | None) -> None:
    """Refuse to hold a release against graphs that another recipe or compiler would have made.

    Raises:
        InputError: calibrating again gives other ranges than the manifest says.
    """
    recorded = manifest.calibration
    if recorded is None or quantized is None:
        return
    from libra_edge.compiler.release.facts import input_amax

    for name, precision in quantized.precisions.items():
        found = input_amax(quantized.ranges.get(name), precision)
        known = recorded.layers[name].input_amax if name in recorded.layers else None
        if found != known:
            raise _differs(f"Calibrating again gives {name} inputs within {found}", str(known))


def _differs(here: str, recorded: str) -> InputError:
    return InputError(
        "calibration-differs",
        f"{here}; the manifest says {recorded}.",
        "Use the libra-edge that compiled the release, or leave out --calibrate.",
    )


def _calibration_again(
    recorded: Calibration, checkpoint: AnyCheckpoint, calibrate: Path | None
) -> CalibrationData:
    """The frames that the manifest lists, if they are still what they were."""
    from libra_edge.compiler.quantization.calibration_data import open_calibration_data

    if calibrate is None:
        raise InputError(
            "calibration-data-needed",
            "The release is quantised, and its graphs depend on calibration data.",
            f"Name the data it was calibrated on, dataset {recorded.dataset}: --calibrate DATASET.",
        )
    data = open_calibration_data(calibrate, None, checkpoint, len(recorded.frames))
    if data.sha256 != recorded.sha256:
        raise InputError(
            "calibration-data-differs",
            f"{calibrate} is not what this release was calibrated on.",
            f"Name what the manifest names: dataset {recorded.dataset}.",
        )
    return data


def _as_checkpoint(metric: str, passed: bool, otherwise: str) -> Check:
    verdict: Verdict = "pass" if passed else "fail"
    return Check("checkpoint", metric, float(passed), 1.0, 1, verdict, "" if passed else otherwise)
