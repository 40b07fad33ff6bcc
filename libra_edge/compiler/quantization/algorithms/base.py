"""What an algorithm decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from libra_edge.catalog import Recipe
from libra_edge.compiler.quantization.linear import Ranges
from libra_edge.compiler.quantization.ranges import Seen


@dataclass(frozen=True)
class Algorithm:
    """How the ranges of weights and activations are found.

    method: ModelOpt's own, for `modelopt.torch.quantization.quantize`, on extremes; collected:
    where ModelOpt is to choose from histograms of absolute activations, its options for that;
    inputs: what is made of both ends of integer inputs, from what passed through the layers.
    """

    method: str | Mapping[str, Any] = "max"
    collected: Callable[[Recipe], dict[str, Any]] | None = None
    inputs: Callable[[Mapping[str, Ranges], Mapping[str, Seen]], dict[str, Ranges]] | None = None
