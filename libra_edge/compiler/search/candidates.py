"""The policies that a compilation may end in: one for most recipes, a choice for a search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from libra_edge.catalog import Recipe, Target, TargetEngine
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.graphs.make_graphs import OnStage
from libra_edge.compiler.quantization.calibration_data import CalibrationData
from libra_edge.compiler.quantization.quantize import Quantized, in_half, quantize
from libra_edge.compiler.search.layer_costs import layer_costs
from libra_edge.compiler.search.search import Found, search, with_kept
from libra_edge.compiler.search.sensitivity import measure_layers
from libra_edge.compiler.search.simulation import Trial
from libra_edge.engines import engine
from libra_edge.limits import Limits
from libra_edge.parity.samples import Sample
from libra_edge.policy.checkpoint import Checkpoint


@dataclass(frozen=True)
class Candidate:
    """A policy to compile; None where nothing is quantised, or nothing was sought."""

    quantized: Quantized | None
    found: Found | None = None


def as_the_recipe_says(
    checkpoint: Checkpoint,
    recipe: Recipe,
    settings: TargetEngine,
    calibration: CalibrationData | None,
    cache: StageCache,
    on_stage: OnStage,
) -> Candidate:
    """The policy with every layer as the recipe has it.

    Args:
        checkpoint: the policy.
        recipe: what its layers become.
        settings: of the engines it is written for.
        calibration: what ranges are found on; None where the recipe needs none.
        cache: keeps the ranges.
        on_stage: called with what is going on.
    """
    if recipe.precision == "fp16":
        on_stage("calibrate", "16-bit floats need no ranges")
        return Candidate(in_half(checkpoint))
    if calibration is None:
        on_stage("calibrate", f"nothing to do for {recipe.name}")
        return Candidate(None)
    on_stage("calibrate", f"{recipe.algorithm} on {len(calibration)} samples")
    form = engine(settings.kind).qdq
    return Candidate(quantize(checkpoint, recipe, calibration, form, cache))


def seek(
    checkpoint: Checkpoint,
    target: Target,
    settings: TargetEngine,
    recipe: Recipe,
    quantized: Quantized,
    samples: Sequence[Sample],
    limits: Limits,
    cache: StageCache,
    on_stage: OnStage,
) -> Iterator[Candidate]:
    """Ever stricter choices of layers that stay in high precision.

    Args:
        checkpoint: the policy.
        target: the machine that engines are built for.
        settings: of the engines that it is to run.
        recipe: where the search starts.
        quantized: the policy with every layer as the recipe has it.
        samples: what outputs are compared on.
        limits: the gates.
        cache: keeps what layers cost.
        on_stage: called with what is going on.
    """

    def say(what: str) -> None:
        on_stage("calibrate", what)

    policy, form = checkpoint.policy, engine(settings.kind).qdq
    trial = Trial(checkpoint, recipe, quantized, form, samples)
    allowed = trial.allowed(limits)
    say("what high precision costs, layer by layer")
    costs = layer_costs(policy, quantized, target, settings, cache)
    ranked = measure_layers(trial, policy, allowed, lambda name: say(f"alone: {name}"))
    for found in search(trial, ranked, costs, allowed, say):
        yield Candidate(with_kept(checkpoint, recipe, quantized, form, found), found)
