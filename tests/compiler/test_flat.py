"""Blocks for one observation at a time against the policy's own."""

from __future__ import annotations

import pytest
import torch

from libra_edge.compiler.flat import FlatEncoderBlock
from libra_edge.compiler.precision import layer_names
from libra_edge.engines.base import Product
from libra_edge.policy.layers import EncoderBlock


@pytest.mark.parametrize("rows", [0, 5])
def test_an_encoder_block_computes_the_same(rows: int) -> None:
    """Its keys have no bias, whether it attends to itself alone or to memory as well."""
    torch.manual_seed(0)
    block = EncoderBlock(16, 4).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x, memory = torch.randn(1, 7, 16), torch.randn(1, rows, 16) if rows else None
    flat = FlatEncoderBlock(block, last=True)
    with torch.no_grad():
        torch.testing.assert_close(flat(x, memory), block(x, memory))


@pytest.mark.parametrize(
    ("weight", "layers"),
    [
        ("policy.planner.blocks.1.attention.key.weight.stored", ("attention.key_value",)),
        ("policy.planner.blocks.1.attention.value.weight", ("attention.key_value",)),
        ("step/planner.blocks.1.attention.all.weight", ("attention.query", "attention.key_value")),
        ("policy.planner.blocks.1.mlp.0.weight", ("mlp.0",)),
    ],
)
def test_a_product_is_known_by_the_policys_layers(weight: str, layers: tuple[str, ...]) -> None:
    product = Product(weight, "QGemm", "int8", 0, 1)
    assert layer_names(product) == tuple(f"planner.blocks.1.{layer}" for layer in layers)
