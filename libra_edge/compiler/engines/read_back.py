"""What a built engine really computes in, held against what was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set

from libra_edge.catalog import LayerPrecision
from libra_edge.engines.base import Product
from libra_edge.errors import ParityError

# Graph names: `policy.` or `context/` and `step/`, then the layer's, then what is kept of it.
_WEIGHT = re.compile(r"(?:policy\.|context/|step/)*(?P<layer>.+?)\.weight(?:\.stored)?")
# One product of several layers, see `libra_edge.compiler.graphs.export.restore_names`.
_BRACES = re.compile(r"(.*)\{(.+)\}(.*)")
_STEM = re.compile(r"(?P<tokens>.+\.images)\.stem\.\d+")
# Query, key and value are one product or three, see `quantization.unbatched_blocks`.
_PARTS = {".all": (".query", ".key_value"), ".key": (".key_value",), ".value": (".key_value",)}


def shown_name(product: Product) -> str:
    """What to call a product: its layer, or its weight's own name."""
    match = _WEIGHT.fullmatch(product.weight)
    return match["layer"] if match else product.weight


def layer_names(product: Product) -> tuple[str, ...]:
    """The policy's layers that one product computes; empty for a weight without a name."""
    match = _WEIGHT.fullmatch(product.weight)
    if match is None:
        return ()
    name = match["layer"]
    if braces := _BRACES.fullmatch(name):
        before, numbers, after = braces.groups()
        return tuple(f"{before}{number}{after}" for number in numbers.split(","))
    if stem := _STEM.fullmatch(name):
        return (stem["tokens"],)
    for suffix, parts in _PARTS.items():
        if name.endswith(suffix):
            return tuple(name.removesuffix(suffix) + part for part in parts)
    return (name,)


# What ONNX Runtime has kernels for; other engine kinds say their own. Other precisions are turned
# into floats first, and are not asked for.
KERNELS = frozenset({"int8", "int4 weights, fp32 activations"})


def integer_layers(
    precisions: Mapping[str, LayerPrecision], kernels: Set[str] = KERNELS
) -> tuple[str, ...]:
    """The layers whose products are to run on weights as an engine's kernels take them."""
    return tuple(name for name, precision in precisions.items() if str(precision) in kernels)


def running(products: Iterable[Product]) -> dict[str, str]:
    """Layer to the precision it runs in; `mixed` where its products differ."""
    found: dict[str, set[str]] = {}
    for product in products:
        for name in layer_names(product):
            found.setdefault(name, set()).add(product.precision)
    return {n: kinds.pop() if len(kinds) == 1 else "mixed" for n, kinds in found.items()}


def require_integers(
    wanted: Sequence[str], products: Sequence[Product], kernels: Set[str] = KERNELS
) -> None:
    """Refuse engines that fell back to floats.

    Raises:
        ParityError: a layer that was to run on integers does not; names them.
    """
    runs = running(products)
    fallen = [name for name in wanted if runs.get(name) not in kernels]
    if fallen:
        shown = ", ".join(f"{name} ({runs.get(name, 'not found')})" for name in fallen)
        raise ParityError(
            "precision-fallback",
            f"{len(fallen)} of {len(wanted)} layers do not run on integer weights: {shown}.",
            "Nothing was released. Keep these layers in high precision (the recipe's `keep`), or "
            "report it: this engine no longer knows the form that its Q/DQ is written in.",
        )
