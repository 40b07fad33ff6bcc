"""Transformer blocks of a quantised policy, written for one observation at a time.

The same arithmetic as `policy.libra_vla.layers` on tensors without the batch axis. A matrix product
of a few rows takes no longer than the operators around it, so these blocks have few: one operator
for an attention and one product for its query, key and value, adaLN's shift and scale inside the
normalisation. They count once most products are in integers.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from libra_edge.compiler.quantization.linear import QuantizedLinear, StoredWeight, onnx_node
from libra_edge.policy.libra_vla.layers import Attention, EncoderBlock
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.policy.libra_vla.refiner import Context, DenoiserBlock, Refiner

# The first with an operator for attention.
OPSET = 23


def flatten_blocks(policy: LibraVLA) -> None:
    """Replace, in place, every transformer block by its form for one observation."""
    if policy.refiner is not None:
        policy.refiner.__class__ = FlatRefiner
    for module in policy.modules():
        if isinstance(module, nn.GELU):
            # Off by 5e-4 at most, a small part of any rounding step.
            module.approximate = "tanh"
    for stack in [module for module in policy.modules() if isinstance(module, nn.ModuleList)]:
        for i, block in enumerate(stack):
            last = i == len(stack) - 1
            if isinstance(block, EncoderBlock):
                stack[i] = FlatEncoderBlock(block, last=last)
            elif isinstance(block, DenoiserBlock):
                stack[i] = FlatDenoiserBlock(block, last=last)


class FlatAttention(nn.Module):
    """`Attention` for one observation, as one operator between its products.

    Args:
        attention: what it stands for; its layers may be quantised.
        together: one product for query, key and value: of few rows that attend to themselves. Of
            many, three products take less time than splitting the result of one.
    """

    opset = OPSET

    def __init__(self, attention: Attention, *, together: bool) -> None:
        super().__init__()
        self.heads = attention.heads
        # Declared as nn.Linear; quantising puts other modules in their places.
        query, key_value, output = (
            cast(nn.Module, layer)
            for layer in (attention.query, attention.key_value, attention.output)
        )
        self.query, self.output = query, output
        self.key, self.value = key_and_value(key_value)
        self.all = side_by_side(query, key_value) if together else None

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [1, S, width] of a memory [S, width]."""
        return self.key(memory)[None], self.value(memory)[None]

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, gain: Tensor | None = None) -> Tensor:
        """Attend from x [Q, width] to what `keys_values` gave; `gain` [width] on the result."""
        return self._attend(self.query(x)[None], keys, values, gain)

    def _attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        gain: Tensor | None,
        bias: Tensor | None = None,
    ) -> Tensor:
        given = (queries, keys, values)
        if torch.onnx.is_in_onnx_export():
            heads = {"q_num_heads": self.heads, "kv_num_heads": self.heads}
            scored = given if bias is None else (*given, bias.expand(1, 1, queries.shape[1], -1))
            y = onnx_node("Attention", scored, queries.dtype, queries.shape, version=OPSET, **heads)
        else:
            q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in given)
            y = F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2)
        return gained(self.output, y.reshape(queries.shape[1:]), gain)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        gain: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Attend from x [Q, width] to memory [S, width], or to x itself; `gain` [width] on it.

        `bias` [1, 1, 1, S] is added to the scores.
        """
        if memory is None and self.all is not None:
            queries, keys, values = self.all(x)[None].chunk(3, dim=-1)
            return self._attend(queries, keys, values, gain)
        keys, values = self.keys_values(x if memory is None else memory)
        return self._attend(self.query(x)[None], keys, values, gain, bias)


class FlatEncoderBlock(nn.Module):
    """`EncoderBlock` for one observation: the first takes the batch axis off, the last adds it."""

    def __init__(self, block: EncoderBlock, *, last: bool) -> None:
        super().__init__()
        self.last = last
        self.norm_attention, self.norm_mlp = block.norm_attention, block.norm_mlp
        self.attention = FlatAttention(block.attention, together=False)
        self.mlp = block.mlp

    def forward(
        self, x: Tensor, memory: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """See `EncoderBlock.forward`."""
        x = _flat(x)
        y = self.norm_attention(x)
        seen = None if memory is None else torch.cat([_flat(memory), y])
        x = x + self.attention(y, seen, bias=bias)
        x = x + self.mlp(self.norm_mlp(x))
        return x[None] if self.last else x


class FlatDenoiserBlock(nn.Module):
    """`DenoiserBlock` for one observation: the first takes the batch axis off, the last adds it."""

    def __init__(self, block: DenoiserBlock, *, last: bool) -> None:
        super().__init__()
        self.last = last
        self.width = block.width
        self.self_attention = FlatAttention(block.self_attention, together=True)
        self.norm_cross = block.norm_cross
        self.cross_attention = FlatAttention(block.cross_attention, together=False)
        self.mlp = block.mlp

    def forward(self, x: Tensor, modulation: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """See `DenoiserBlock.forward`."""
        x = _flat(x)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = modulation[0].chunk(6)
        y = F.layer_norm(x, (self.width,), 1 + scale, shift)
        x = x + self.self_attention(y, gain=1 + gate)
        x = x + self.cross_attention.attend(self.norm_cross(x), *memory)
        y = F.layer_norm(x, (self.width,), 1 + scale_mlp, shift_mlp)
        *inner, last = self.mlp
        for layer in inner:
            y = layer(y)
        x = x + gained(last, y, 1 + gate_mlp)
        return x[None] if self.last else x


class FlatRefiner(Refiner):
    """`Refiner` for one observation, without the batch axis around its blocks."""

    def context(self, memory: Tensor, intent: Tensor) -> Context:
        """See `Refiner.context`: intents [H, width], keys and values of `FlatAttention`."""
        dims, bins, _ = self.intents.shape
        # One table for all action dimensions.
        rows = intent[0] + bins * torch.arange(dims, dtype=intent.dtype)
        embedded = F.embedding(rows, self.intents.flatten(0, 1)).sum(1)
        attentions = [block.cross_attention for block in self._denoisers()]
        pairs = [attention.keys_values(_flat(memory)) for attention in attentions]
        keys, values = zip(*pairs, strict=True)
        return Context(embedded + self.position, keys, values)

    def denoise_one(self, noisy: Tensor, modulation: Tensor, context: Context) -> Tensor:
        """See `Refiner.denoise_one`."""
        x = self.noisy(noisy) + context.intents
        *parts, last = modulation.split(6 * self.width)
        for block, part, key, value in zip(
            self.blocks, parts, context.keys, context.values, strict=True
        ):
            x = block(x, part[None], (key, value))
        shift, scale = last.chunk(2)
        prediction: Tensor = self.output(F.layer_norm(_flat(x), (self.width,), 1 + scale, shift))
        return prediction


def _flat(x: Tensor) -> Tensor:
    """Without the batch axis of one, if it is there."""
    return x if x.dim() == 2 else x.flatten(0, 1)


def gained(layer: nn.Module, x: Tensor, gain: Tensor | None) -> Tensor:
    """What the layer gives, times `gain` [out]; integer products take it into their scales."""
    integers = isinstance(layer, QuantizedLinear) and isinstance(layer.weight, StoredWeight)
    if integers and layer.input is not None:
        return layer(x, gain)
    y: Tensor = layer(x)
    return y if gain is None else gain * y


def key_and_value(layer: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Two layers in place of one, each with half of its outputs.

    Keys have no bias: it adds the same to all scores of a query, which softmax ignores.
    """
    if isinstance(layer, QuantizedLinear):
        return layer.halved(0, biased=False), layer.halved(1)
    assert isinstance(layer, nn.Linear)
    width = layer.out_features // 2
    key = nn.Linear(layer.in_features, width, bias=False)
    value = nn.Linear(layer.in_features, width)
    with torch.no_grad():
        key.weight.copy_(layer.weight[:width])
        value.weight.copy_(layer.weight[width:])
        value.bias.copy_(layer.bias[width:])
    return key, value


def side_by_side(first: nn.Module, second: nn.Module) -> nn.Module | None:
    """One layer for two that read the same input; None where they read it differently."""
    if isinstance(first, QuantizedLinear) and isinstance(second, QuantizedLinear):
        return first.beside(second)
    if not (isinstance(first, nn.Linear) and isinstance(second, nn.Linear)):
        return None
    result = nn.Linear(first.in_features, first.out_features + second.out_features)
    with torch.no_grad():
        result.weight.copy_(torch.cat([first.weight, second.weight]))
        result.bias.copy_(torch.cat([first.bias, second.bias]))
    return result
