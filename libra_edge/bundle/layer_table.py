"""What the layers of a release run in, block by block and in sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from libra_edge.bundle.engine_facts import Layer


@dataclass(frozen=True)
class Share:
    """Layers that run in one precision; moved_bytes: of weights, by one plan and one chunk."""

    precision: str
    layers: int
    weight_bytes: int
    moved_bytes: int


def precision_shares(layers: Iterable[Layer]) -> list[Share]:
    """How much of a release runs in what, the most moved first."""
    kinds: dict[str, list[Layer]] = {}
    for layer in layers:
        kinds.setdefault(layer.precision, []).append(layer)
    shares = [
        Share(
            precision,
            len(found),
            sum(layer.weight_bytes for layer in found),
            sum(layer.weight_bytes * layer.runs for layer in found),
        )
        for precision, found in kinds.items()
    ]
    return sorted(shares, key=lambda share: (-share.moved_bytes, share.precision))


def layer_blocks(layers: Iterable[Layer]) -> list[tuple[str, list[Layer]]]:
    """Layers by the block of the policy that they belong to, blocks in the order of their names."""
    blocks: dict[str, list[Layer]] = {}
    for layer in layers:
        blocks.setdefault(block(layer.name), []).append(layer)
    return sorted(blocks.items(), key=lambda item: _by_number(item[0]))


def in_words(block: str, layers: Sequence[Layer]) -> str:
    """What a block runs in: the precision of most of its layers, then the others by name."""
    kinds: dict[str, list[str]] = {}
    for layer in layers:
        kinds.setdefault(layer.precision, []).append(within(block, layer.name))
    (most, _), *others = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    return "; ".join([most, *(f"{kind}: {', '.join(names)}" for kind, names in others)])


def block(layer: str) -> str:
    """`planner.blocks.0` of `planner.blocks.0.mlp.2`: up to the number, or else the parent."""
    words = layer.split(".")
    for place, word in enumerate(words[:-1]):
        if word.isdecimal():
            return ".".join(words[: place + 1])
    # What fusion made of several layers has a name without a parent.
    return ".".join(words[:-2] if words[-1].isdecimal() else words[:-1]) or layer


def within(block: str, layer: str) -> str:
    """The rest of a layer's name."""
    return layer.removeprefix(f"{block}.")


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(w), "") if w.isdecimal() else (-1, w) for w in name.split(".")]
