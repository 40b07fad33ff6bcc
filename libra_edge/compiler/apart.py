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
import onnxsim
import torch
from onnx import TensorProto
from torch import Tensor

from libra_edge.compiler.export import OPSET, finish, torch_program
from libra_edge.compiler.split import Graph

# Smaller ones stay in the graph, where simplification and the engine's compiler see their values.
SMALLEST_BYTES = 2**16
# Readers map the file into memory, page by page.
_PAGE_BYTES = 4096


def export_apart(
    graph: Graph, data: Path, opset: int = OPSET, smallest_bytes: int = SMALLEST_BYTES
) -> onnx.ModelProto:
    """Export one graph with static shapes; see `libra_edge.compiler.export.export`.

    Args:
        graph: what to export.
        data: the file to append weights to; the graph names it without its folder.
        opset: of `libra_edge.compiler.export.IR_VERSIONS`.
        smallest_bytes: weights of this size or more go to the file.
    """
    model = torch_program(graph, opset).model
    weights: dict[str, Tensor] = {}
    for name, value in list(model.graph.initializers.items()):
        content = value.const_value
        if isinstance(content, ir.TensorProtocol) and content.nbytes >= smallest_bytes:
            weights[name] = torch.as_tensor(content.raw)
            del model.graph.initializers[name]
            value.const_value = None
            model.graph.inputs.append(value)
    simplified, same = onnxsim.simplify(ir.to_proto(model))
    if not same:
        raise RuntimeError(f"onnxsim changed what the {graph.name} computes")
    weights = _transposed(simplified.graph, weights)
    result = finish(simplified, graph.name, opset)
    with data.open("ab") as stream:
        _move(result.graph, weights, data.name, stream)
    return result


def _transposed(graph: onnx.GraphProto, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as products read them: a transposition of a weight is done here, once."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    result = dict(weights)
    shapes = {value.name: value.type.tensor_type.shape for value in graph.input}
    idle = []
    for name, tensor in weights.items():
        if [node.op_type for node in readers.get(name, [])] != ["Transpose"] or tensor.dim() != 2:
            continue
        (node,) = readers[name]
        idle.append(node)
        result[name] = tensor.detach().t()
        for dim, size in zip(shapes[name].dim, result[name].shape, strict=True):
            dim.dim_value = size
        for reader in readers[node.output[0]]:
            reader.input[:] = [name if i == node.output[0] else i for i in reader.input]
    for node in idle:
        graph.node.remove(node)
    return result


def _move(
    graph: onnx.GraphProto, weights: Mapping[str, Tensor], location: str, stream: BinaryIO
) -> None:
    """Turn inputs back into weights, whose content goes to the stream."""
    inputs = [value for value in graph.input if value.name not in weights]
    for value in graph.input:
        if value.name not in weights:
            continue
        stream.write(bytes(-stream.tell() % _PAGE_BYTES))
        content = weights[value.name].detach().contiguous().view(torch.uint8).numpy()
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
