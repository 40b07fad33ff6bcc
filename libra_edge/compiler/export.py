"""Export a module to ONNX: simplified, checked, and free of anything about this machine."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import onnx
import onnxsim
import torch

from libra_edge.compiler import blocks, flat
from libra_edge.compiler.split import Graph
from libra_edge.errors import InputError

OPSET = 20
# The oldest IR with each opset; a newer one would only shut out older runtimes.
IR_VERSIONS = {OPSET: 9, blocks.OPSET: 10, flat.OPSET: 11}
# Protobuf's own limit is 2 GiB; the rest is room for the graph around the weights.
LARGEST_WEIGHTS_BYTES = 2**31 - 2**24


def export(graph: Graph) -> onnx.ModelProto:
    """Export one graph with static shapes.

    Args:
        graph: what to export.

    Raises:
        InputError: its weights do not fit into one ONNX file.
    """
    weights = sum(p.numel() * p.element_size() for p in graph.module.parameters())
    if weights > LARGEST_WEIGHTS_BYTES:
        raise InputError(
            "model-too-large",
            f"The {graph.name} has {weights / 2**30:.1f} GiB of weights; "
            "one ONNX file holds less than 2 GiB.",
            "Compile a smaller backbone.",
        )
    with _quiet():
        model, same = onnxsim.simplify(torch_program(graph).model_proto)
    if not same:
        raise RuntimeError(f"onnxsim changed what the {graph.name} computes")
    restore_names(model.graph, dict(graph.module.named_parameters()))
    blocks.pack(model.graph)
    return finish(model, graph.name, opset_for(graph))


def opset_for(graph: Graph) -> int:
    """The oldest opset, from `OPSET` on, that has all operators: modules say what they need."""
    return max(int(getattr(module, "opset", OPSET)) for module in graph.module.modules())


def torch_program(graph: Graph) -> torch.onnx.ONNXProgram:
    """A graph as PyTorch exports it, its weights still PyTorch's own."""
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph.module,
            graph.arguments,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=opset_for(graph),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program


def finish(model: onnx.ModelProto, name: str, opset: int) -> onnx.ModelProto:
    """Strip every trace of the build (stack traces hold local paths), name and check a graph."""
    clean = onnx.ModelProto(
        ir_version=IR_VERSIONS[opset], producer_name="libra-edge", graph=model.graph
    )
    clean.opset_import.add(domain="", version=opset)
    clean.graph.name = name
    _strip(clean.graph)
    _drop_unused_weights(clean.graph)
    if model.functions or any(node.domain for node in clean.graph.node):
        raise RuntimeError(f"the {name} graph has operators that are not standard ONNX")
    onnx.checker.check_model(_weights_apart_as_inputs(clean), full_check=True)
    return clean


def _weights_apart_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """What the checker takes: it looks for weights that lie in another file in the wrong folder."""
    apart = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    if not apart:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in apart:
        result.graph.initializer.remove(tensor)
        value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        result.graph.input.append(value)
    return result


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators that a finished graph uses."""
    return int(model.opset_import[0].version)


def to_bytes(model: onnx.ModelProto) -> bytes:
    """The file form; the same model gives the same bytes."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def from_bytes(content: bytes) -> onnx.ModelProto:
    """The model that `to_bytes` wrote."""
    model: onnx.ModelProto = onnx.ModelProto.FromString(content)
    return model


def restore_names(graph: onnx.GraphProto, weights: Mapping[str, torch.Tensor]) -> None:
    """Call a weight that was transposed while exporting by its layer's name again.

    It is by these names that a built engine says what every layer runs in.
    """
    taken = {tensor.name for tensor in graph.initializer}
    known = {
        weight.detach().t().contiguous().numpy().tobytes(): name
        for name, weight in weights.items()
        if weight.dim() == 2 and name not in taken
    }
    names = {
        tensor.name: known.pop(tensor.raw_data)
        for tensor in graph.initializer
        if len(tensor.dims) == 2 and tensor.raw_data in known
    }
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def _drop_unused_weights(graph: onnx.GraphProto) -> None:
    used = {output.name for output in graph.output} | _read_by(graph)
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    graph.ClearField("initializer")
    graph.initializer.extend(kept)


def _read_by(graph: onnx.GraphProto) -> set[str]:
    names = {name for node in graph.node for name in node.input}
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return names.union(*(_read_by(body) for body in inner))


def _strip(graph: onnx.GraphProto) -> None:
    for field in ("doc_string", "metadata_props", "value_info", "quantization_annotation"):
        graph.ClearField(field)
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.node):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")
    for node in graph.node:
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            if attribute.type == onnx.AttributeProto.GRAPH:
                _strip(attribute.g)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's warnings off: they are about its own workings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
