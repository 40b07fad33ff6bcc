"""Ranges of what passes through a layer, both ends apart.

Either all that was seen, or of several the one that leaves the least error in the layer's output.
The largest value seen is often met once, and a range that holds it is coarse everywhere else; a
range that clips values which the next weights multiply by much is worse still. Only the product
with the weights tells the two apart, and only on average: what is clipped seldom may be what a
policy acts on (decision 0033).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from libra_edge.compiler.quantization.linear import Ranges

# Of what was seen, from the whole range down.
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
LEVELS = 255
# Kept of each call of a layer.
_ROWS, _PIXELS = 256, 1024


@dataclass
class Seen:
    """What passed through one layer.

    low, high: extremes of all inputs; inputs: some rows [R, in] of a linear layer's; outputs: some
    pixels [R, out] of a convolution's; highest: of each channel that a convolution reads, [in].
    """

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    low: float = 0.0
    high: float = 0.0
    highest: Tensor | None = None

    def add(self, layer: nn.Module, given: Tensor, result: Tensor) -> None:
        """Keep some of one call."""
        self.low = min(self.low, float(given.min()))
        self.high = max(self.high, float(given.max()))
        if isinstance(layer, nn.Conv2d):
            highest = given.amax(dim=(0, 2, 3)).clamp(min=0)
            self.highest = highest if self.highest is None else highest.maximum(self.highest)
            pixels = result.permute(0, 2, 3, 1).flatten(0, 2)
            self.outputs.append(_some(pixels, _PIXELS))
        else:
            self.inputs.append(_some(given.flatten(0, -2), _ROWS))


def _some(rows: Tensor, count: int) -> Tensor:
    """`count` rows, evenly spread."""
    at = torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()
    return rows[at].clone()


@torch.inference_mode()
def watch(
    policy: nn.Module, names: Sequence[str], run: Callable[[nn.Module], None]
) -> dict[str, Seen]:
    """Run the policy and keep what passes through the layers called `names`."""
    seen = {name: Seen() for name in names}
    hooks = [
        policy.get_submodule(name).register_forward_hook(
            lambda layer, given, result, kept=kept: kept.add(layer, given[0], result)
        )
        for name, kept in seen.items()
    ]
    try:
        run(policy)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@torch.inference_mode()
def search_inputs(found: Mapping[str, Ranges], seen: Mapping[str, Seen]) -> dict[str, Ranges]:
    """The same ranges, those of inputs by the error that rounding them leaves.

    Layers that read the same input get one range, so that they can be one product.
    """
    result = dict(found)
    for names in _sharing(seen):
        weights = [found[name].weight for name in names]
        kept, floor = seen[names[0]], found[names[0]].input_floor
        low = kept.low if floor is None else max(kept.low, floor)
        low, high = _search(torch.cat(kept.inputs), torch.cat(weights), low, kept.high)
        for name in names:
            result[name] = replace(found[name], input_floor=low, input_amax=high)
    return result


def whole_inputs(found: Mapping[str, Ranges], seen: Mapping[str, Seen]) -> dict[str, Ranges]:
    """The same ranges, those of inputs from the least to the largest value seen."""
    result = dict(found)
    for name, kept in seen.items():
        low, high = _ends(found[name], kept)
        result[name] = replace(found[name], input_floor=low, input_amax=high)
    return result


def _ends(found: Ranges, kept: Seen) -> tuple[float, float]:
    """The least and largest input; ModelOpt saw the farther of both on more data."""
    amax = found.input_amax
    low, high = (kept.low, amax) if kept.high >= -kept.low else (-amax, kept.high)
    return low if found.input_floor is None else max(low, found.input_floor), high


def _sharing(seen: Mapping[str, Seen]) -> list[list[str]]:
    """Names of layers, those together that saw the same inputs."""
    groups: list[list[str]] = []
    for name, kept in seen.items():
        for group in groups:
            first = seen[group[0]].inputs
            if len(first) == len(kept.inputs) and all(map(_same, first, kept.inputs)):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _search(inputs: Tensor, weight: Tensor, low: float, high: float) -> tuple[float, float]:
    """The range of inputs whose rounding changes the layer's output least.

    First the top's share of what was seen is chosen, then the bottom's.
    """

    def error(bounds: tuple[float, float]) -> float:
        lost = _rounded(inputs, *bounds) - inputs
        return float((lost @ weight.t()).square().mean())

    best = min(((low, share * high) for share in SHARES), key=error)
    return min(((share * low, best[1]) for share in SHARES), key=error)


def _rounded(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """The nearest of 256 steps from `low` to `high`, of which zero is one."""
    scale = torch.as_tensor((high - low) / LEVELS).clamp(min=1e-12)
    zero = torch.as_tensor(-low / scale).round()
    return ((x / scale).round() + zero).clamp(0, LEVELS).sub(zero) * scale


@torch.inference_mode()
def of_convolution(found: Ranges, kept: Seen) -> Ranges:
    """The ranges of each channel that a convolution reads and gives.

    What it reads is never clipped: few pixels go far, and a policy acts on just those.
    """
    low, high = _search_outputs(kept)
    floor = kept.low if found.input_floor is None else max(kept.low, found.input_floor)
    return replace(
        found, input_floor=floor, input_high=kept.highest, output_low=low, output_high=high
    )


def _search_outputs(kept: Seen) -> tuple[Tensor, Tensor]:
    """Lowest and highest value [out] of each channel; zero is between them."""
    pixels = torch.cat(kept.outputs)
    low, high = pixels.amin(0).clamp(max=0), pixels.amax(0).clamp(min=0)

    def best(candidates: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        errors = [(_rounded(pixels, *c) - pixels).square().mean(0) for c in candidates]
        chosen = torch.stack(errors).argmin(0)[None]
        lows, highs = (torch.stack(bound) for bound in zip(*candidates, strict=True))
        return lows.gather(0, chosen)[0], highs.gather(0, chosen)[0]

    low, high = best([(low, share * high) for share in SHARES])
    return best([(share * low, high) for share in SHARES])
