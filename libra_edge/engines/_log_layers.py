"""What a TensorRT engine really computes in: the list of layers in the compiler's log.

With detailed profiling verbosity the log ends in one line per layer, with the number formats of
its inputs and constants and the nodes of the graph it stands for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

# What the log calls the formats of numbers, and their bits.
_FORMATS = {
    "Float": ("fp32", 32),
    "Half": ("fp16", 16),
    "BFloat16": ("bf16", 16),
    "Int8": ("int8", 8),
    "FP8": ("fp8", 8),
    "Int4": ("int4", 4),
    "FP4": ("nvfp4", 4),
    "Int32": ("int32", 32),
    "Int64": ("int64", 64),
    "UInt8": ("uint8", 8),
    "Bool": ("bool", 8),
}
_LAYER = re.compile(r"^Name: .*?, LayerType: (?P<type>\w+), (?P<rest>.*)$", re.MULTILINE)
_LISTS = re.compile(r"Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], Outputs:")
_TENSOR = re.compile(
    r"Name: (?P<name>.+?), Dimensions: \[(?P<dims>[\d,]*)\].*?Datatype: (?P<format>\w+)"
)
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_WEIGHTS_AT = {"Gemm": 1, "MatMul": 1, "Conv": 1}
# A weight passes these on its way to its product.
_ON_THE_WAY = ("DequantizeLinear", "Cast", "Reshape", "Transpose")


@dataclass(frozen=True)
class Constant:
    """A constant as the engine stores it."""

    name: str
    format: str
    size_bytes: int


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    nodes: of the graph, that it stands for; input_format: of the first tensor it reads;
    input_formats: of all of them.
    """

    type: str
    nodes: tuple[str, ...]
    input_format: str | None
    constants: tuple[Constant, ...]
    input_formats: tuple[str, ...]

    @property
    def multiplies(self) -> bool:
        """Whether it is a product, rather than what is computed element by element around one."""
        return self.type in ("gemm", "correlation", "runtime_fusion")


def engine_layers(log: str) -> Iterator[Layer]:
    """Every layer that the log lists."""
    for match in _LAYER.finditer(log):
        lists = _LISTS.search(match["rest"])
        if lists is None:
            continue
        inputs = [_constant(tensor) for tensor in _TENSOR.finditer(lists["inputs"])]
        yield Layer(
            match["type"],
            tuple(_NODE.findall(match["rest"])),
            inputs[0].format if inputs else None,
            tuple(_constant(tensor) for tensor in _TENSOR.finditer(lists["constants"])),
            tuple(tensor.format for tensor in inputs),
        )


def stored_bytes(log: str) -> dict[str, int]:
    """Bytes of the engine's constants by number format; one that many layers read counts once."""
    constants = {c.name: c for layer in engine_layers(log) for c in layer.constants}
    total: dict[str, int] = {}
    for constant in constants.values():
        total[constant.format] = total.get(constant.format, 0) + constant.size_bytes
    return total


def products_of(graph: onnx.GraphProto, runs: int = 1) -> dict[str, tuple[str, int]]:
    """Node of a product with weights to the weight's name and how often the node runs."""
    return _products(graph, {}, runs)


def _products(
    graph: onnx.GraphProto, outer: dict[str, str], runs: int
) -> dict[str, tuple[str, int]]:
    origin = {**outer, **{tensor.name: tensor.name for tensor in graph.initializer}}
    found: dict[str, tuple[str, int]] = {}
    for node in graph.node:
        at = _WEIGHTS_AT.get(node.op_type)
        if node.op_type in _ON_THE_WAY and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        elif at is not None and node.input[at] in origin:
            found[node.name] = (origin[node.input[at]], runs)
        elif node.op_type == "Loop":
            count = next(t for t in graph.initializer if t.name == node.input[0])
            trips = int(onnx.numpy_helper.to_array(count))
            body = next(a.g for a in node.attribute if a.name == "body")
            found |= _products(body, origin, runs * trips)
    return found


def _constant(tensor: re.Match[str]) -> Constant:
    name, bits = _FORMATS.get(tensor["format"], (tensor["format"].lower(), 32))
    elements = 1
    for dim in filter(None, tensor["dims"].split(",")):
        elements *= int(dim)
    return Constant(tensor["name"], name, elements * bits // 8)
