"""Blocks for one observation at a time against the policy's own."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from libra_edge.compiler.engines.read_back import layer_names
from libra_edge.compiler.graphs.export import export, opset_of, to_bytes
from libra_edge.compiler.quantization.unbatched_blocks import OPSET, FlatEncoderBlock
from libra_edge.engines.base import Product
from libra_edge.engines.onnxruntime import ENGINE
from libra_edge.policy.family import Graph
from libra_edge.policy.libra_vla.layers import EncoderBlock


@pytest.mark.parametrize("rows", [0, 5])
def test_an_encoder_block_computes_the_same(rows: int) -> None:
    """Its keys have no bias, whether it attends to itself alone or to memory as well."""
    block, x, memory = _block(rows)
    flat = FlatEncoderBlock(block, last=True)
    with torch.no_grad():
        torch.testing.assert_close(flat(x, memory), block(x, memory))


@pytest.mark.parametrize("rows", [0, 5])
def test_an_exported_attention_is_one_operator(rows: int) -> None:
    block, x, memory = _block(rows)
    given = (x,) if memory is None else (x, memory)
    graph = Graph(
        "block", FlatEncoderBlock(block, last=True), given, ("x", "memory")[: len(given)], ("y",)
    )
    model = export(graph)
    operators = Counter(node.op_type for node in model.graph.node)
    assert (operators["Attention"], operators["Softmax"], operators["MatMul"]) == (1, 0, 0)
    assert opset_of(model) == OPSET
    session = ENGINE.load(to_bytes(model), "CPUExecutionProvider", {})
    found = session.run(dict(zip(graph.inputs, (t.numpy() for t in given), strict=True)))["y"]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), block(x, memory))


def _block(rows: int) -> tuple[EncoderBlock, torch.Tensor, torch.Tensor | None]:
    """A block whose every parameter counts, rows to attend from, and rows of memory or None."""
    torch.manual_seed(0)
    block = EncoderBlock(16, 4).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block, torch.randn(1, 7, 16), torch.randn(1, rows, 16) if rows else None


@pytest.mark.parametrize(
    ("weight", "layers"),
    [
        ("policy.planner.blocks.1.attention.key.weight.stored", ("attention.key_value",)),
        ("policy.planner.blocks.1.attention.value.weight", ("attention.key_value",)),
        ("step/planner.blocks.1.attention.all.weight", ("attention.query", "attention.key_value")),
        ("policy.planner.blocks.1.mlp.0.weight", ("mlp.0",)),
        ("context/planner.blocks.1.mlp.{0,2}.weight", ("mlp.0", "mlp.2")),
    ],
)
def test_a_product_is_known_by_the_policys_layers(weight: str, layers: tuple[str, ...]) -> None:
    product = Product(weight, "QGemm", "int8", 0, 1)
    assert layer_names(product) == tuple(f"planner.blocks.1.{layer}" for layer in layers)
