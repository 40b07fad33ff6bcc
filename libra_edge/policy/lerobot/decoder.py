"""Layers of a language model's decoder: RMS norms, rotated positions, grouped heads, gated MLP.

Llama's (arXiv 2307.09288) and Gemma's (arXiv 2403.08295), without a batch axis; names are those of
transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

# Added to the scores of what must not be seen: nothing is left of it after the softmax, and it can
# be said in half precision.
HIDDEN = -30000.0


def gelu(x: Tensor) -> Tensor:
    """GELU by its tangent, as both SigLIP and Gemma have it."""
    return nn.functional.gelu(x, approximate="tanh")


@dataclass(frozen=True)
class LayerSizes:
    """Of one layer.

    groups: heads of keys and values, each shared by `heads` / `groups` queries; read: width of what
    keys and values are made from, `width` where a layer attends to itself.
    """

    width: int
    heads: int
    groups: int
    head: int
    feedforward: int
    read: int
    eps: float


def layer_sizes(
    shapes: Mapping[str, tuple[int, ...]], layer: str, *, heads: int, head: int, eps: float
) -> LayerSizes | None:
    """Sizes from the shapes of a layer's tensors; None where some are missing.

    Args:
        shapes: by name.
        layer: prefix of the layer's names.
        heads: of the queries; tensors do not tell.
        head: size of one.
        eps: of the norms.
    """
    found = [
        shapes.get(f"{layer}.{name}.weight", ())
        for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj")
    ]
    if any(len(shape) != 2 for shape in found):
        return None
    (_, width), (keys, read), (feedforward, _) = found
    return LayerSizes(width, heads, keys // head, head, feedforward, read, eps)


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis; squares are summed in 32 bits."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """X [..., width]."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return normed.to(x.dtype) * self.weight


class Reading(nn.Module):
    """Keys and values of what is attended to."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.k_proj = nn.Linear(sizes.read, sizes.groups * sizes.head, bias=False)
        self.v_proj = nn.Linear(sizes.read, sizes.groups * sizes.head, bias=False)
        self.head = sizes.head

    def keys(self, x: Tensor) -> Tensor:
        """[groups, S, d] of x [S, read]."""
        return in_heads(self.k_proj(x), self.head)

    def values(self, x: Tensor) -> Tensor:
        """[groups, S, d] of x [S, read]."""
        return in_heads(self.v_proj(x), self.head)


class Attention(nn.Module):
    """Projections of an attention; who attends to what is the caller's.

    Args:
        sizes: of the layer.
        reads: it makes keys and values; else it is given them.
    """

    def __init__(self, sizes: LayerSizes, *, reads: bool = True) -> None:
        super().__init__()
        self.q_proj = nn.Linear(sizes.width, sizes.heads * sizes.head, bias=False)
        self.reading = Reading(sizes) if reads else None
        self.o_proj = nn.Linear(sizes.heads * sizes.head, sizes.width, bias=False)
        self.head = sizes.head

    def queries(self, x: Tensor) -> Tensor:
        """[heads, S, d] of x [S, width]."""
        return in_heads(self.q_proj(x), self.head)

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each [groups, S, d], of x [S, width]."""
        reading = cast("Reading", self.reading)
        return reading.keys(x), reading.values(x)


def in_heads(x: Tensor, head: int) -> Tensor:
    """[S, heads * d] → [heads, S, d]."""
    return x.reshape(len(x), -1, head).transpose(0, 1)


class Layer(nn.Module):
    """One layer of a decoder, in halves: before its attention and after it."""

    def __init__(
        self,
        sizes: LayerSizes,
        activation: Callable[[Tensor], Tensor],
        *,
        reads: bool = True,
    ) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(sizes.width, sizes.eps)
        self.self_attn = Attention(sizes, reads=reads)
        self.post_attention_layernorm = RmsNorm(sizes.width, sizes.eps)
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(sizes.width, sizes.feedforward, bias=False),
                "up_proj": nn.Linear(sizes.width, sizes.feedforward, bias=False),
                "down_proj": nn.Linear(sizes.feedforward, sizes.width, bias=False),
            }
        )
        self.activation = activation

    def keep_reading(self) -> None:
        """Forget everything but what makes keys and values."""
        del self.self_attn.q_proj, self.self_attn.o_proj, self.post_attention_layernorm, self.mlp

    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The layer's output from its input x [S, width] and what it attended to, [S, ...]."""
        x = x + self.self_attn.o_proj(mixed)
        y = self.post_attention_layernorm(x)
        gated = self.activation(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y)
        down: Tensor = self.mlp["down_proj"](gated)
        return x + down


def each(layers: nn.ModuleList) -> list[Layer]:
    """The layers of a list of them."""
    return [cast("Layer", layer) for layer in layers]


def turns(places: Tensor, head: int, wavelength: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine of rotary positions (Su et al., arXiv 2104.09864), each [S, head / 2].

    Args:
        places: float32 [S].
        head: size of a head.
        wavelength: of the slowest turn.
    """
    steps = torch.arange(head // 2, dtype=torch.float32) * (2.0 / head)
    angles = places[:, None] / wavelength**steps
    return angles.cos(), angles.sin()


def turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """X [heads, S, d] rotated: halves, not neighbours, form the pairs."""
    (first, second), (cosine, sine) = x.chunk(2, -1), (part.to(x.dtype) for part in turn)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1)


def attended(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """What queries find, [Q, heads * d].

    Args:
        queries: [heads, Q, d].
        keys: [groups, S, d].
        values: [groups, S, d].
        bias: [Q, S] or [S], 0 or `HIDDEN`.
    """
    heads, count, head = queries.shape
    groups = len(keys)
    # The queries that share keys stand one above the other: one product for all of them.
    stacked = queries.reshape(groups, -1, head) * head**-0.5
    scores = (stacked @ keys.transpose(1, 2)).reshape(groups, heads // groups, count, -1)
    scores = scores + bias.to(scores.dtype)
    weights = torch.softmax(scores, -1).reshape(groups, heads // groups * count, -1)
    found = (weights @ values).reshape(heads, count, head)
    return found.transpose(0, 1).reshape(count, heads * head)


def own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of layers, by the names that they have here."""
    return {
        name.replace("self_attn.k_proj", "self_attn.reading.k_proj").replace(
            "self_attn.v_proj", "self_attn.reading.v_proj"
        ): tensor
        for name, tensor in tensors.items()
    }
