"""Every automatic choice and why, in words for people; nothing reads them back."""

from __future__ import annotations

import textwrap

from libra_edge.bundle.manifest import Decision
from libra_edge.catalog import LayerPrecision, Recipe, Target
from libra_edge.compiler.engines.build import Built
from libra_edge.compiler.engines.plan import EnginePlan
from libra_edge.compiler.engines.read_back import running
from libra_edge.compiler.quantization.assign import form_under, part_rest, rest_subject
from libra_edge.compiler.quantization.calibration_data import CalibrationData
from libra_edge.compiler.quantization.linear import Ranges
from libra_edge.compiler.quantization.quantize import Quantized
from libra_edge.compiler.request import Job
from libra_edge.compiler.search.candidates import Candidate
from libra_edge.compiler.search.search import Found
from libra_edge.engines.base import runs_here
from libra_edge.policy.checkpoint import Checkpoint

_LONGEST_TEXT = 4000


def decisions(job: Job, candidate: Candidate, built: Built) -> tuple[Decision, ...]:
    """All of a release, in the order they were taken in."""
    quantized, found = candidate.quantized, candidate.found
    return (
        *_build(job.target, built),
        *(calibration_decisions(job.calibration) if job.calibration else ()),
        *(_search(found) if found else ()),
        *(simulation_decisions(job.plan) if quantized else ()),
        *(_rests(job, quantized, built) if quantized and job.recipe.quantizes else ()),
        *(_layers(job.recipe, quantized, built) if quantized else ()),
    )


def _build(target: Target, built: Built) -> tuple[Decision, ...]:
    """Engine kind and the refiner's form, and what was not run."""
    kind = Decision(
        stage="build",
        subject="engine kind",
        choice=built.plan.wanted.kind,
        reason=built.plan.reason,
    )
    form = Decision(
        stage="build",
        subject="refiner form",
        choice=built.choice.form,
        reason=built.choice.reason,
    )
    if runs_here(target.arch):
        return kind, form
    left_out = Decision(
        stage="check",
        subject="native runtime",
        choice="not run while compiling",
        reason=f"this machine does not run {target.arch}; verify the release on the robot",
    )
    return kind, form, left_out


def calibration_decisions(data: CalibrationData) -> tuple[Decision, ...]:
    """What ranges were found on: the dataset and every frame."""
    frames = " ".join(f"{episode}:{step}" for episode, step in data.frames)
    source = Decision(
        stage="calibrate",
        subject="calibration data",
        choice=f"dataset {data.source}",
        reason=f"{len(data)} frames over tasks, episodes and phases, more where grippers move; "
        f"content {data.sha256}",
    )
    # In pieces, as a text of the manifest is bounded.
    lists = [
        Decision(
            stage="calibrate",
            subject="calibration frames (episode:step)",
            choice=piece,
            reason="stratified choice",
        )
        for piece in textwrap.wrap(frames, _LONGEST_TEXT)
    ]
    return (source, *lists)


def _search(found: Found) -> tuple[Decision, ...]:
    """That layers were sought to keep in high precision, and by what rule."""
    by = "measured time, in powers of two" if found.unit == "us" else "weight bytes moved"
    total = len(found.kept) + len(found.quantized)
    return (
        Decision(
            stage="quantise",
            subject="auto-precision",
            choice=f"{len(found.kept)} of {total} layers in high precision",
            reason=f"the fewest found with which simulated outputs use up at most "
            f"{found.share:.0%} of the gates; costs by {by}",
        ),
    )


def simulation_decisions(plan: EnginePlan) -> tuple[Decision, ...]:
    """That a quantised policy was judged without its engine, where this machine cannot run it."""
    if plan.measurable:
        return ()
    return (
        Decision(
            stage="check",
            subject="parity",
            choice="simulated quantisation",
            reason=f"{plan.wanted.provider} does not run here: what the gates hold is the graphs "
            "that its engines are built from, run on this CPU as they are written",
        ),
    )


def _rests(job: Job, quantized: Quantized, built: Built) -> tuple[Decision, ...]:
    """The floats of what is not rounded, graph by graph; none where there are 32-bit ones alone."""
    if job.plan.qdq.rest == "fp32":
        return ()
    form, asked = form_under(job.recipe, job.plan.qdq), job.recipe.rest is not None
    usual = f"what recipe {job.recipe.name} does not round, {job.plan.wanted.kind} engines "
    usual += "multiply and move in 16 bits"
    usual = f"recipe {job.recipe.name} says so" if asked else usual
    libra = isinstance(job.checkpoint, Checkpoint)
    found = []
    for graph in built.by_name:
        rest = part_rest(quantized.precisions, form, graph if libra else "")
        reason = quantized.reasons.get(rest_subject(graph), usual)
        found.append(
            Decision(stage="quantise", subject=rest_subject(graph), choice=rest, reason=reason)
        )
    return tuple(found)


def _layers(recipe: Recipe, quantized: Quantized, built: Built) -> tuple[Decision, ...]:
    """What every layer became and why, and what it runs in."""
    # What the graphs run in on a CPU says nothing of the engines that a robot builds of them.
    runs = {} if built.plan.on_device else running(built.products)
    return tuple(
        Decision(
            stage="quantise",
            subject=name,
            choice=str(precision),
            reason=_why(recipe, quantized, name, precision, runs.get(name)),
        )
        for name, precision in quantized.precisions.items()
    )


def _why(
    recipe: Recipe, quantized: Quantized, name: str, precision: LayerPrecision, runs: str | None
) -> str:
    as_named = "leaves this part" if precision.high else "for this part"
    reason = quantized.reasons.get(name) or f"recipe {recipe.name} {as_named}"
    found = quantized.ranges.get(name)
    if found is not None and precision.rounds_inputs:
        reason += f"; {_range_words(found, recipe)}"
    return reason + (f"; runs in {runs}" if runs else "")


def _range_words(found: Ranges, recipe: Recipe) -> str:
    return f"input within {found.input_amax:.6g} by {recipe.algorithm}"
