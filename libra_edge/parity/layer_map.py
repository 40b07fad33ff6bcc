"""What every layer of a release runs in, and what quantising it would do, for the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from libra_edge.bundle.manifest import Layer


class LayerSensitivity(BaseModel):
    """What quantising one layer alone did where the release was compiled.

    gate_used: the largest share of a parity gate that it uses up; tokens: share of equal tokens;
    action: p99 action error as a share of the range; kept: it stays in high precision.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer: str
    gate_used: float
    tokens: float
    action: float
    kept: bool


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


def layer_blocks(layers: Sequence[Layer]) -> list[tuple[str, list[Layer]]]:
    """Layers by the block of the policy that they belong to, blocks in the order of their names."""
    blocks: dict[str, list[Layer]] = {}
    for layer in layers:
        blocks.setdefault(block(layer.name), []).append(layer)
    return sorted(blocks.items(), key=lambda item: _by_number(item[0]))


def block(layer: str) -> str:
    """`planner.blocks.0` of `planner.blocks.0.mlp.2`: up to the number, or else the parent."""
    words = layer.split(".")
    for place, word in enumerate(words[:-1]):
        if word.isdecimal():
            return ".".join(words[: place + 1])
    return ".".join(words[:-2] if words[-1].isdecimal() else words[:-1])


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(w), "") if w.isdecimal() else (-1, w) for w in name.split(".")]


def read_sensitivities(build: Mapping[str, Any] | None) -> tuple[LayerSensitivity, ...]:
    """The search's measurements of each layer alone, the worst first, where the build made them."""
    if build is None:
        return ()
    kept = {row["layer"] for row in build.get("kept", [])}
    found = [
        LayerSensitivity(
            layer=row["layer"],
            gate_used=row["gate_used"],
            tokens=row["effect"]["tokens"],
            action=row["effect"]["action"],
            kept=row["layer"] in kept,
        )
        for row in build.get("sensitivity", [])
    ]
    return tuple(sorted(found, key=lambda one: (-one.gate_used, one.layer)))
