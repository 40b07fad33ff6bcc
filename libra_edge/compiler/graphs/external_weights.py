"""Export a graph whose weights lie in a file of their own: one ONNX file holds less than 2 GiB.

While the graph is made its large weights are inputs without content, so it is simplified and
checked at its own size; then they are written one by one, and no second copy is ever in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto
from torch import Tensor, nn

from libra_edge.compiler.graphs.export import (
    finish,
    opset_for,
    restore_names,
    simplified,
    torch_program,
)
from libra_edge.policy.family import Graph

# Smaller ones stay in the graph, where simplification and the engine's compiler see their values.
SMALLEST_BYTES = 2**16
# Readers map the file into memory, page by page.
_PAGE_BYTES = 4096


def export_apart(graph: Graph, data: Path, smallest_bytes: int = SMALLEST_BYTES) -> onnx.ModelProto:
    """Export one graph with static shapes; see `libra_edge.compiler.graphs.export.export`.

    Args:
        graph: what to export.
        data: the file to append weights to; the graph names it without its folder.
        smallest_bytes: weights of this size or more go to the file.
    """
    model = torch_program(graph).model
    weights = _take_out(model.graph, graph.module, smallest_bytes)
    model_proto = simplified(ir.to_proto(model), graph.name)
    known = graph.module.named_parameters()
    inside = {name: weight for name, weight in known if weight.nbytes < smallest_bytes}
    restore_names(model_proto.graph, inside)
    result = finish(model_proto, graph.name, opset_for(graph))
    with data.open("ab") as stream:
        _move(result.graph, weights, data.name, stream)
    return result


def _take_out(graph: ir.Graph, module: nn.Module, smallest_bytes: int) -> dict[str, Tensor]:
    """Turn large weights into inputs, by their layers' names; returns what they hold.

    A weight that was transposed while exporting is still the module's own memory: it is known by
    its place.
    """
    layers = {weight.data_ptr(): name for name, weight in module.named_parameters()}
    weights: dict[str, Tensor] = {}
    for name, value in list(graph.initializers.items()):
        content = value.const_value
        if not isinstance(content, ir.TensorProtocol) or content.nbytes < smallest_bytes:
            continue
        tensor = torch.as_tensor(content.raw).detach()
        layer = layers.get(tensor.data_ptr(), name)
        del graph.initializers[name]
        value.name = layer if layer not in graph.initializers | weights else name
        value.const_value = None
        graph.inputs.append(value)
        weights[value.name] = tensor
    return weights


def _move(
    graph: onnx.GraphProto, weights: Mapping[str, Tensor], location: str, stream: BinaryIO
) -> None:
    """Turn inputs back into weights, whose content goes to the stream."""
    inputs = [value for value in graph.input if value.name not in weights]
    for value in graph.input:
        if value.name not in weights:
            continue
        stream.write(bytes(-stream.tell() % _PAGE_BYTES))
        content = weights[value.name].contiguous().view(torch.uint8).numpy()
        tensor = TensorProto(
            name=value.name,
            data_type=value.type.tensor_type.elem_type,
            dims=[dim.dim_value for dim in value.type.tensor_type.shape.dim],
            data_location=TensorProto.EXTERNAL,
        )
        for key, entry in (
            ("location", location),
            ("offset", stream.tell()),
            ("length", content.nbytes),
        ):
            tensor.external_data.add(key=key, value=str(entry))
        graph.initializer.append(tensor)
        stream.write(content.data)
    graph.ClearField("input")
    graph.input.extend(inputs)
