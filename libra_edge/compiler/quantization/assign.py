"""Which layer becomes what: the recipe's word, and what an engine's form leaves of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import torch
from torch import nn

from libra_edge.catalog import HIGH, LayerPrecision, Number, PartName, Recipe
from libra_edge.compiler.quantization.int4_blocks import fills_blocks
from libra_edge.engines.base import QdqForm
from libra_edge.errors import IncompatibleError
from libra_edge.policy.imported import AnyPolicy, families, module_of
from libra_edge.policy.libra_vla.layers import ImageTokens

# The longest name that matches decides.
_PARTS: dict[str, PartName | None] = {
    "planner.backbone": "planner.backbone",
    "planner.backbone.state": "embeddings",
    "planner.memory": "planner.head",
    "planner.blocks": "planner.head",
    "planner.output": "outputs",
    "refiner.images": "refiner.encoder",
    "refiner.encoder": "refiner.encoder",
    "refiner.state": "embeddings",
    "refiner.noisy": "embeddings",
    "refiner.blocks": "refiner.blocks",
    "refiner.output": "outputs",
    # Evaluated while compiling: learned queries and rows of a table, no layers of any graph.
    "planner.blocks.0.attention.query": None,
    "refiner.time": None,
    "refiner.modulate": None,
}
# Layers that only one kind of backbone or of eyes has: a recipe may keep some of each.
_OF_ONE_KIND = (
    *("planner.backbone.blocks", "planner.backbone.images", "planner.backbone.model"),
    *("refiner.images.model", "refiner.images.project"),
)
# Of these there is a form in standard ONNX that engines take.
_WRITTEN = frozenset({"fp32", "fp16", "int8", "int8-weights", "int4-weights", "fp8", "int4-fp8"})
Precisions = Mapping[str, LayerPrecision]


def quantizable_layers(policy: AnyPolicy) -> dict[str, PartName]:
    """Every layer with weights that has a part; an image stem counts as one layer."""
    found: dict[str, PartName] = {}
    stems: tuple[str, ...] = ()
    for name, module in module_of(policy).named_modules():
        part = part_of(name)
        if part is None or name.startswith(stems):
            continue
        if isinstance(module, ImageTokens):
            stems = (*stems, f"{name}.")
        if isinstance(module, nn.Linear | nn.Conv2d | ImageTokens):
            found[name] = part
    return found


def part_of(name: str) -> PartName | None:
    """The part of the policy that a layer of this name belongs to; None for no layer of a graph."""
    table = _all_parts()
    prefixes = [prefix for prefix in table if f"{name}.".startswith(f"{prefix}.")]
    return table[max(prefixes, key=len)] if prefixes else None


@cache
def _all_parts() -> dict[str, PartName | None]:
    """The tables of all families in one: their names never meet."""
    found = dict(_PARTS)
    for family in families():
        found |= family.parts
    return found


def require_layers(recipe: Recipe, policy: AnyPolicy) -> None:
    """Refuse a policy without a layer that the recipe keeps.

    Raises:
        InputError: see `Recipe.require_layers`.
    """
    names = quantizable_layers(policy)
    own = {name.split(".")[0] for name in names}
    others = [prefix for prefix in _all_parts() if prefix.split(".")[0] not in own]
    found = [f"{name}." for name in names]
    others += [p for p in _OF_ONE_KIND if not any(n.startswith(f"{p}.") for n in found)]
    recipe.require_layers(names, others)


def choose_precisions(policy: AnyPolicy, recipe: Recipe, form: QdqForm) -> Precisions:
    """What the recipe makes of every layer that it can be made of.

    Raises:
        InputError: the recipe keeps a layer that is not there.
    """
    require_layers(recipe, policy)
    left = left_out(policy, recipe, form)
    rest = recipe_rest(recipe, form)
    parts = quantizable_layers(policy).items()
    return {
        name: (HIGH if name in left else recipe.layer(name, part)).beside(rest)
        for name, part in parts
    }


def recipe_rest(recipe: Recipe, form: QdqForm) -> Number:
    """The floats of what a recipe does not round, in an engine kind's form.

    A recipe that rounds nothing says them itself.
    """
    if recipe.quantizes:
        return recipe.rest or form.rest
    return "fp16" if recipe.precision == "fp16" else "fp32"


def form_under(recipe: Recipe, form: QdqForm) -> QdqForm:
    """An engine kind's form, with the floats of the rest that a recipe asks for."""
    return replace(form, rest=recipe_rest(recipe, form))


def rest_subject(graph: str) -> str:
    """What the manifest calls the decision about the floats of one graph."""
    return f"rest of the {graph}"


def part_rest(precisions: Precisions, form: QdqForm, part: str) -> Number:
    """The floats of what is not rounded in a part of a policy: those of its layers' floats.

    Args:
        precisions: of every layer that could be quantised.
        form: what counts where every layer of the part is rounded.
        part: the first word of its layers' names; empty for the whole policy.
    """
    inside = f"{part}." if part else ""
    found = {
        precision.activations
        for name, precision in precisions.items()
        if name.startswith(inside) and not precision.rounds_inputs
    }
    if not found:
        return form.rest
    return "fp32" if "fp32" in found else "fp16"


def left_out(policy: AnyPolicy, recipe: Recipe, form: QdqForm) -> dict[str, str]:
    """Layers that stay in high precision against the recipe, and why."""
    reasons = {}
    for name, part in quantizable_layers(policy).items():
        precision, module = recipe.layer(name, part), module_of(policy).get_submodule(name)
        if precision.high:
            continue
        if isinstance(module, ImageTokens):
            integers = precision == LayerPrecision(weights="int8", activations="int8")
            if not (integers and form.images_in_integers):
                reasons[name] = f"there are no convolutions of {precision} in this engine's form"
        elif isinstance(module, nn.Conv2d):
            reasons[name] = f"there is no form of convolutions of {precision} outside image stems"
        elif precision.weights == "int4":
            assert isinstance(module, nn.Linear)
            if fills_blocks(module.in_features, recipe.block):
                continue
            reasons[name] = f"its inputs are not two or more blocks of {recipe.block}"
    return reasons


def require_calibration_runs_here(recipe: Recipe) -> None:
    """Refuse a recipe that this compiler or this machine cannot carry out.

    Raises:
        IncompatibleError: it needs a CUDA GPU, or a way to write graphs that is not there yet.
    """
    if recipe.needs_gpu and not torch.cuda.is_available():
        raise IncompatibleError(
            "recipe-needs-gpu",
            f"Recipe {recipe.name!r} is calibrated on a CUDA GPU, and this machine has none.",
            "Compile on a machine with one, or choose --recipe int8 or fp8.",
        )
    if missing := ", ".join(sorted(recipe.needs - _WRITTEN)):
        raise IncompatibleError(
            "recipe-not-compiled",
            f"Recipe {recipe.name!r} ({missing}) cannot be written as a graph yet.",
            f"Choose a recipe of {', '.join(sorted(_WRITTEN))}.",
        )
