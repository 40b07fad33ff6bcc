"""The policies that a compilation may end in: one for most recipes, a choice for a search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from libra_edge.compiler.graphs.make_graphs import OnStage
from libra_edge.compiler.quantization.quantize import Quantized, as_the_recipe_says
from libra_edge.compiler.request import Job
from libra_edge.compiler.search.layer_costs import layer_costs
from libra_edge.compiler.search.search import Found, search, with_kept
from libra_edge.compiler.search.sensitivity import measure_layers
from libra_edge.compiler.search.simulation import Trial
from libra_edge.engines import engine
from libra_edge.parity.samples import choose_samples


@dataclass(frozen=True)
class Candidate:
    """A policy to compile; None where nothing is quantised, or nothing was sought."""

    quantized: Quantized | None
    found: Found | None = None


def candidates(job: Job, on_stage: OnStage) -> Iterator[Candidate]:
    """What the recipe says, or ever stricter choices of layers that stay in high precision.

    A search is made on the gates' samples and as many more.
    """
    recipe, data = job.recipe, job.calibration
    on_stage("calibrate", f"{recipe.algorithm} on {len(data)} samples" if data else "no ranges")
    form = engine(job.plan.wanted.kind).qdq
    first = as_the_recipe_says(job.checkpoint, recipe, data, form, job.cache)
    if not job.request.auto_precision:
        yield Candidate(first)
    elif first is not None:
        yield from _seek(job, first, on_stage)


def _seek(job: Job, quantized: Quantized, on_stage: OnStage) -> Iterator[Candidate]:
    def say(what: str) -> None:
        on_stage("calibrate", what)

    checkpoint, request, wanted = job.libra, job.request, job.plan.wanted
    config, form = checkpoint.config, engine(wanted.kind).qdq
    more = choose_samples(
        config.embodiment,
        config,
        checkpoint.tokenizer,
        len(job.samples),
        request.seed + 1,
        request.calibrate,
    )
    trial = Trial(checkpoint, job.recipe, quantized, form, [*job.samples, *more])
    allowed = trial.allowed(job.limits)
    say("what high precision costs, layer by layer")
    costs = layer_costs(checkpoint.policy, quantized, job.target, wanted, job.cache)
    ranked = measure_layers(trial, checkpoint.policy, allowed, lambda name: say(f"alone: {name}"))
    for found in search(trial, ranked, costs, allowed, say):
        yield Candidate(with_kept(checkpoint, job.recipe, quantized, form, found), found)
