"""Recipes: how the numbers of a policy are stored and computed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from itertools import zip_longest
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from libra_edge.catalog.entries import Entry, Number, Precision, Table
from libra_edge.errors import InputError
from libra_edge.limits import Limits

Algorithm = Literal["none", "max", "percentile", "entropy", "mse", "smoothquant", "awq"]
PartName = Literal[
    "planner.backbone",
    "planner.head",
    "refiner.encoder",
    "refiner.blocks",
    "prefix.vision",
    "prefix.language",
    "expert",
    "encoder",
    "embeddings",
    "outputs",
]
PARTS: tuple[PartName, ...] = get_args(PartName)
# What a target must be able to run, by a layer's weights and activations.
_FORMS: dict[tuple[Number, Number], Precision] = {
    ("int8", "int8"): "int8",
    ("int8", "fp32"): "int8-weights",
    ("int4", "fp32"): "int4-weights",
    ("fp8", "fp8"): "fp8",
    ("int4", "fp8"): "int4-fp8",
    ("nvfp4", "nvfp4"): "nvfp4",
}


class LayerPrecision(Table):
    """How one layer's weights are stored, and what its input is rounded to before it.

    In a recipe, weights and activations are `int8` and `int8`, `int8` and `fp32`, `int4` and
    `fp32`, `fp8` and `fp8`, `int4` and `fp8`, or `nvfp4` and `nvfp4`.
    """

    weights: Number
    """The number format of the stored weights."""
    activations: Number
    """The number format of the layer's input; `fp32` leaves the product in the floats that the
    target's engines compute in."""

    @property
    def high(self) -> bool:
        """Whether nothing is quantised."""
        return self in (HIGH, HALF)

    @property
    def rounds_inputs(self) -> bool:
        """Whether the layer's input is rounded to fewer bits than floats have."""
        return self.activations not in _FLOATS

    def beside(self, rest: Number) -> LayerPrecision:
        """The same, its floats those of what surrounds it."""
        weights, activations = (
            rest if number in _FLOATS else number for number in (self.weights, self.activations)
        )
        return LayerPrecision(weights=weights, activations=activations)

    def __str__(self) -> str:
        return (
            self.weights
            if self.weights == self.activations
            else (f"{self.weights} weights, {self.activations} activations")
        )


_FLOATS: tuple[Number, ...] = ("fp32", "fp16")
HIGH = LayerPrecision(weights="fp32", activations="fp32")
HALF = LayerPrecision(weights="fp16", activations="fp16")


class Recipe(Entry):
    """How the numbers of a policy are stored and computed.

    A recipe without `parts` calibrates nothing: every layer is in the floats of `precision`. With
    `parts`, layers are rounded part by part, and ranges are found on calibration data.
    """

    precision: Precision
    """What a target must be able to run: `fp32` or `fp16` without `parts`, else the precision of
    one of them. A target has to run those of the others too."""
    algorithm: Algorithm = "none"
    """How ranges are found; `none` exactly where there are no `parts`. `max`: all that was seen,
    nothing is clipped; `percentile`, `entropy`: from histograms of activations; `mse`: what leaves
    the least error in the layer's output; `smoothquant`: outlying channels of activations move into
    the weights; `awq`: weights are scaled by how much their inputs matter."""
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    """Of absolute activations, what a range holds; for that algorithm alone. The default clips one
    value in ten thousand."""
    block: Literal[16, 32, 64, 128] = 32
    """Inputs of an output that share a scale, for 4-bit integer weights alone. Smaller is more
    exact and takes more bytes for scales. A layer whose inputs are not two or more whole blocks
    stays in high precision."""
    samples: Annotated[int, Field(ge=1, le=4096)] = 256
    """Calibration frames wanted; `--calibration-samples` overrides it. The default is
    what the integer recipes were measured with."""
    needs_gpu: bool = False
    """Whether calibration runs on CUDA alone; without such a GPU the recipe is refused."""
    keep: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Layers that stay in high precision whatever `parts` says: patterns of layer names, in which
    `*` matches anything, dots too (`planner.backbone.blocks.0.*`). A pattern that matches no layer
    of the policy is refused."""
    parts: dict[PartName, LayerPrecision] = Field(default={})
    """What the layers of each part become, as `[parts."planner.backbone"]`. A part that is left out
    stays in high precision: embeddings and outputs are tiny, and their errors reach tokens and
    actions undamped."""
    rest: Literal["fp32"] | None = None
    """The floats of everything that `parts` does not round: attention, normalisation, what is kept,
    and products of weight-only layers. Left out, they are what the target's engines compute in, 16
    bits on GPUs; `fp32` is for a policy that 16-bit floats do not hold."""
    gates: Limits
    """What every stage of a release has to pass, by default."""

    @model_validator(mode="after")
    def _algorithm_fits(self) -> Recipe:
        if bool(self.parts) != (self.algorithm != "none"):
            raise ValueError("a recipe with parts needs an algorithm, and only such a one")
        return self

    @model_validator(mode="after")
    def _precision_is_of_its_parts(self) -> Recipe:
        for part, layer in self.parts.items():
            if layer != HIGH and (layer.weights, layer.activations) not in _FORMS:
                raise ValueError(f"parts.{part}: there is no form of {layer}")
        known = self._rounded() if self.parts else {"fp32", "fp16"}
        if not known:
            raise ValueError("parts: every one of them stays in high precision")
        if self.precision not in known:
            raise ValueError(f"precision: with these parts it is {' or '.join(sorted(known))}")
        return self

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> Recipe:
        """Refuse a key that would be read by nobody."""
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        idle = {
            "percentile": self.algorithm != "percentile",
            "block": all(layer.weights != "int4" for layer in self.parts.values()),
            "samples": not self.parts,
            "needs_gpu": not self.parts,
            "keep": not self.parts,
            "rest": not self.parts,
        }
        for name, unread in idle.items():
            if unread and getattr(self, name) != defaults[name]:
                raise ValueError(f"{name} does nothing in this recipe")
        return self

    @property
    def quantizes(self) -> bool:
        """Whether any layer changes."""
        return bool(self.parts)

    @property
    def needs(self) -> frozenset[Precision]:
        """Everything that a target must be able to run."""
        return frozenset({self.precision}) | self._rounded()

    def _rounded(self) -> set[Precision]:
        pairs = {(layer.weights, layer.activations) for layer in self.parts.values()}
        return {precision for pair, precision in _FORMS.items() if pair in pairs}

    def layer(self, name: str, part: PartName) -> LayerPrecision:
        """What the layer called `name`, in `part`, becomes."""
        if any(fnmatchcase(name, pattern) for pattern in self.keep):
            return HIGH
        return self.parts.get(part, HIGH)

    def require_layers(self, names: Collection[str], others: Collection[str] = ()) -> None:
        """Refuse a policy without a layer that this recipe keeps.

        Args:
            names: of the policy's layers.
            others: beginnings of names that policies of other families have; a recipe for several
                families may keep layers of each.

        Raises:
            InputError: a pattern of `keep` matches none; the remedy has the nearest that does.
        """
        for pattern in self.keep:
            if not _matches(pattern, names) and not any(
                f"{pattern}.".startswith(f"{other}.") for other in others
            ):
                raise InputError(
                    "recipe-layer-unknown",
                    f"Recipe {self.name!r} keeps {pattern!r} in high precision, and no layer of "
                    "this policy is called so.",
                    _nearest(pattern, names),
                )


def _matches(pattern: str, names: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _nearest(pattern: str, names: Collection[str]) -> str:
    """The remedy for a pattern that matches nothing: the nearest that does, else where to look."""
    parts = pattern.split(".")
    found = set() if "*" in pattern else set(names)
    for name in names:
        own = name.split(".")
        # A pattern that begins with `*` is laid along a name's end, others along its beginning.
        some = own[-len(parts) :] if parts[0] == "*" else own[: len(parts)]
        pairs = zip_longest(parts, some, fillvalue="*")
        found.add(".".join(part if "*" in part else word for part, word in pairs))
    known = sorted(like for like in found if _matches(like, names))
    if near := difflib.get_close_matches(pattern, known, n=1):
        return f"Did you mean {near[0]!r}?"
    roots = sorted({re.sub(r"^(\w+\.\w+)\..*", r"\1.*", name) for name in names})
    return f"Layers are called {', '.join(roots)}; `libra-edge sensitivity` ranks them."
