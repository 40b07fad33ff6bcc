"""Export a module to ONNX: simplified, checked, and free of anything about this machine."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt
import onnx
import onnxsim
import torch
from onnx import numpy_helper

from libra_edge.compiler.quantization import int4_blocks, unbatched_blocks
from libra_edge.errors import InputError
from libra_edge.policy.family import Graph

OPSET = 20
# The oldest IR with each opset; a newer one would only shut out older runtimes.
IR_VERSIONS = {OPSET: 9, int4_blocks.OPSET: 10, unbatched_blocks.OPSET: 11}
# Protobuf's own limit is 2 GiB; the rest is room for the graph around the weights.
LARGEST_WEIGHTS_BYTES = 2**31 - 2**24
# What the simplifier would make operators of com.microsoft of, which other engines do not have.
_NOT_STANDARD = ("fuse_attention", "fuse_gqa", "fuse_rms_norm", "fuse_rope")
Array = npt.NDArray[Any]


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
        model = simplified(torch_program(graph).model_proto, graph.name)
    restore_names(model.graph, dict(graph.module.named_parameters()))
    int4_blocks.pack(model.graph)
    return finish(model, graph.name, opset_for(graph))


def simplified(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """A graph without what follows from constants, in standard operators alone."""
    result: onnx.ModelProto
    result, same = onnxsim.simplify(model, skipped_optimizers=list(_NOT_STANDARD))
    if not same:
        raise RuntimeError(f"onnxsim changed what the {name} computes")
    return result


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

    It is by these names that a built engine says what every layer runs in. Layers that read the
    same input may have become one product, with one weight: `blocks.{0,1}.key_value.weight`.
    """
    taken = {tensor.name for tensor in graph.initializer}
    known = {
        name: weight.detach().t().contiguous().numpy()
        for name, weight in weights.items()
        if weight.dim() == 2 and name not in taken
    }
    alone = {array.tobytes(): name for name, array in known.items()}
    names = {}
    for tensor in (t for t in graph.initializer if len(t.dims) == 2):
        if tensor.raw_data in alone:
            names[tensor.name] = alone.pop(tensor.raw_data)
            del known[names[tensor.name]]
    for tensor in (t for t in graph.initializer if len(t.dims) == 2 and t.name not in names):
        parts = _side_by_side(numpy_helper.to_array(tensor), known)
        if len(parts) > 1 and (name := _in_braces(parts)):
            names[tensor.name] = name
            known = {part: array for part, array in known.items() if part not in parts}
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def _side_by_side(values: Array, known: Mapping[str, Array]) -> list[str]:
    """The weights [in, out] that, side by side, are these values; empty if they are not."""
    alike = {name: array for name, array in known.items() if array.dtype == values.dtype}
    parts: list[str] = []
    at = 0
    while at < values.shape[1]:
        for name, array in alike.items():
            columns = values[:, at : at + array.shape[1]]
            if name not in parts and array.shape == columns.shape and (array == columns).all():
                break
        else:
            return []
        parts.append(name)
        at += known[name].shape[1]
    return parts


def _in_braces(names: Sequence[str]) -> str | None:
    """One name for several that differ in one word: `a.{0,1}.b`."""
    words = list(zip(*(name.split(".") for name in names), strict=False))
    different = [i for i, column in enumerate(words) if len(set(column)) > 1]
    if len({name.count(".") for name in names}) > 1 or len(different) != 1:
        return None
    (at,) = different
    return ".".join(f"{{{','.join(w)}}}" if i == at else w[0] for i, w in enumerate(words))


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
