"""Which recipe the graphs of a release show; a release is judged by that one's gates.

The recipes are the verifier's own. Where graphs fit several, the strictest limit of each counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from libra_edge.bundle.verify import Release
from libra_edge.catalog import HALF, HIGH, LayerPrecision, Recipe, list_recipes
from libra_edge.limits import Limits
from libra_edge.verification.claims.graphs import GraphFacts, NotReadable, read_graph


@dataclass(frozen=True)
class Shown:
    """What the plain graphs of a release show.

    graphs: by name, as far as they could be read; unreadable: why one could not be; precisions: of
    every layer, None where its products differ; recipes: those that make such layers.
    """

    graphs: Mapping[str, GraphFacts] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    precisions: Mapping[str, LayerPrecision | None] = field(default_factory=dict)
    recipes: tuple[Recipe, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether all graphs could be read."""
        return bool(self.graphs) and not self.unreadable

    def fits(self, recipe: str) -> bool:
        """Whether the graphs are what the recipe of this name makes."""
        return any(one.name == recipe for one in self.recipes)

    def best(self, claimed: str) -> Recipe:
        """The recipe that the stages are judged by: the claimed one, but only if it is shown."""
        known = {one.name: one for one in self.recipes}
        return known.get(claimed) or next(iter(self.recipes), list_recipes()["fp32"])

    @property
    def words(self) -> str:
        """What the layers run in, in words."""
        kinds: dict[str, int] = {}
        for precision in self.precisions.values():
            name = "several formats" if precision is None else str(precision)
            kinds[name] = kinds.get(name, 0) + 1
        return ", ".join(f"{count} layers in {name}" for name, count in sorted(kinds.items()))


def read_shown(release: Release) -> Shown:
    """Read both plain graphs of a release; takes the `compile` extra."""
    graphs, unreadable = {}, {}
    for name in release.manifest.engines.by_name:
        try:
            graphs[name] = read_graph(release.member(f"engines/{name}.onnx").read_bytes())
        except NotReadable as reason:
            unreadable[name] = str(reason)
    precisions = {
        layer: facts.precision(layer) for facts in graphs.values() for layer in facts.layers
    }
    return Shown(graphs, unreadable, precisions, _recipes(precisions) if not unreadable else ())


def _recipes(precisions: Mapping[str, LayerPrecision | None]) -> tuple[Recipe, ...]:
    return tuple(r for r in list_recipes().values() if makes(r, precisions))


def makes(recipe: Recipe, precisions: Mapping[str, LayerPrecision | None]) -> bool:
    """Whether a recipe makes such layers, some of them kept in high precision.

    One that rounds has to round something, between floats of 32 or 16 bits, which the engine kind
    says; one that does not has to be in its own floats.
    """
    found = list(precisions.values())
    if not found or None in found:
        return False
    if not recipe.quantizes:
        return set(found) == {HALF if recipe.precision == "fp16" else HIGH}
    wanted = wanted_of(recipe, list(precisions))
    same = {n: p is not None and p.beside("fp32") == wanted[n] for n, p in precisions.items()}
    rounded = [name for name in precisions if same[name] and not wanted[name].high]
    fits = all(same[name] or p in (HIGH, HALF) for name, p in precisions.items())
    return bool(rounded) and fits


def wanted_of(recipe: Recipe, names: Sequence[str]) -> dict[str, LayerPrecision]:
    """What a recipe makes of layers of these names, going by nothing else."""
    from libra_edge.compiler.quantization.assign import part_of

    parts = {name: part_of(name) for name in names}
    return {name: recipe.layer(name, part) if part else HIGH for name, part in parts.items()}


def kept(recipe: Recipe, precisions: Mapping[str, LayerPrecision | None]) -> list[str]:
    """Layers in high precision that the recipe would round."""
    wanted = wanted_of(recipe, list(precisions))
    return [n for n, p in precisions.items() if p in (HIGH, HALF) and not wanted[n].high]


def strictest(recipes: Sequence[Recipe]) -> Limits | None:
    """The strictest limit of each kind; None for no recipe."""
    if not recipes:
        return None
    gates = [recipe.gates for recipe in recipes]
    margins = [one.margin for one in gates if one.margin is not None]
    percentiles = [one.margin_percentile for one in gates if one.margin_percentile is not None]
    return Limits(
        tokens=max(one.tokens for one in gates),
        action=min(one.action for one in gates),
        action_percentile=max(one.action_percentile for one in gates),
        margin=min(margins, default=None),
        margin_percentile=min(percentiles, default=None),
    )
