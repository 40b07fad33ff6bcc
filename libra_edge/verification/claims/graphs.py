"""What a plain graph is, read off its operators: formats of its products, loops, operations.

Loops are written out first, so that every run of an operator counts by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import prod

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from libra_edge.catalog import BITS, LayerPrecision, Number
from libra_edge.compiler.engines.read_back import layer_names, shown_name
from libra_edge.engines.base import Product
from libra_edge.verification.unrolled_graphs import trips, unrolled, with_stored_constants

# No policy denoises as often; a graph that says so is not written out.
MOST_TRIPS = 1_000
_FORMATS: dict[int, Number] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.INT4: "int4",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT4E2M1: "nvfp4",
}
_PRODUCTS = ("Gemm", "MatMul", "Conv")
# What no recipe rounds, and what products of two activations are: the rest of a policy.
_REST = (
    *("Attention", "Softmax", "LayerNormalization", "RMSNormalization"),
    *("GroupNormalization", "InstanceNormalization", "BatchNormalization"),
)
_SHAPE_KEEPING = ("GroupNormalization",)
_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Pad", "Slice")


class NotReadable(ValueError):
    """A graph that no compiler of ours writes; the message says why."""


@dataclass
class Weight:
    """A weight of a product: bytes as stored, what it is multiplied in, and how often per call."""

    stored_bytes: int
    precision: LayerPrecision
    convolution: bool
    runs: int = 0


@dataclass
class GraphFacts:
    """What one graph is.

    layers: precision of the products of every layer, by the policy's names; weights: of products,
    by the name a release calls them; unnamed: those of no layer; rest: formats that attention,
    softmax, normalisation and layers that are not rounded run in; loops: iterations of each;
    operations: multiplications and additions of all products in one call; elements: numbers that
    all other operators make.
    """

    layers: dict[str, set[LayerPrecision]] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
    unnamed: list[str] = field(default_factory=list)
    rest: set[Number] = field(default_factory=set)
    loops: list[int] = field(default_factory=list)
    operations: float = 0.0
    elements: float = 0.0

    def precision(self, layer: str) -> LayerPrecision | None:
        """What a layer runs in; None where its products differ."""
        kinds = self.layers[layer]
        return next(iter(kinds)) if len(kinds) == 1 else None


def read_graph(content: bytes) -> GraphFacts:
    """Read the facts of a plain graph.

    Raises:
        NotReadable: it is no ONNX, or has parts that a plain graph of ours never has.
    """
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf raises what it likes
        raise NotReadable(f"it is no ONNX: {error}") from None
    try:
        model = with_stored_constants(model)
    except ValueError as error:
        raise NotReadable(str(error)) from None
    facts = GraphFacts(loops=list(_loops(model.graph)))
    flat = unrolled(model)
    _require_plain(flat.graph)
    _count(_with_shapes(flat), facts)
    return facts


def _loops(graph: GraphProto) -> Iterator[int]:
    for node in graph.node:
        if node.op_type != "Loop":
            continue
        try:
            count = trips(node, graph)
        except StopIteration:
            raise NotReadable(f"its loop {node.name!r} has no constant count") from None
        if not 1 <= count <= MOST_TRIPS:
            raise NotReadable(f"its loop {node.name!r} runs {count} times")
        yield count


def _require_plain(graph: GraphProto) -> None:
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise NotReadable(f"it has an operator {node.op_type} of {node.domain}")
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise NotReadable(f"its operator {node.op_type} {node.name!r} holds a graph")


def _with_shapes(model: ModelProto) -> ModelProto:
    """The graph with every shape that follows from those of its inputs.

    ONNX infers none for these operators from opset 21 on; their output has the shape of the input.
    """
    plain = ModelProto()
    plain.CopyFrom(model)
    for node in plain.graph.node:
        if node.op_type in _SHAPE_KEEPING:
            same = onnx.helper.make_node("Identity", node.input[:1], node.output)
            node.CopyFrom(same)
    try:
        found = onnx.shape_inference.infer_shapes(plain, data_prop=True)
    except Exception as error:
        raise NotReadable(f"its shapes cannot be inferred: {error}") from None
    for node, own in zip(found.graph.node, model.graph.node, strict=True):
        node.CopyFrom(own)
    return found


class _Reader:
    """Shapes, formats and constants of a flat graph."""

    def __init__(self, graph: GraphProto) -> None:
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.types = {
            value.name: value.type.tensor_type
            for value in (*graph.value_info, *graph.input, *graph.output)
        }
        self._constant: dict[str, bool] = {}

    def size(self, name: str) -> int:
        return prod(self.shape(name))

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self.initializers:
            return tuple(self.initializers[name].dims)
        if name not in self.types or not self.types[name].HasField("shape"):
            raise NotReadable(f"the shape of {name!r} is not fixed")
        dims = tuple(dim.dim_value for dim in self.types[name].shape.dim)
        if 0 in dims:
            raise NotReadable(f"the shape of {name!r} is not fixed")
        return dims

    def format(self, name: str) -> int:
        if name in self.initializers:
            return int(self.initializers[name].data_type)
        return int(self.types[name].elem_type) if name in self.types else 0

    def is_constant(self, name: str) -> bool:
        """Whether a value does not depend on any input; nodes come in order, so no recursion."""
        return name in self.initializers or self._constant.get(name, False)

    def note(self, node: NodeProto) -> bool:
        constant = all(self.is_constant(each) for each in node.input if each)
        self._constant |= dict.fromkeys(node.output, constant)
        return constant

    def stored(self, name: str) -> TensorProto | None:
        """The initialiser that the weights of a product come from.

        Scales and tables of all steps may hold more numbers than the weights they are applied to,
        so those of the weights' own size come first, and of these the one that is least rounded.
        """
        found: list[TensorProto] = []
        waiting, seen = [name], set[str]()
        while waiting:
            each = waiting.pop()
            if each in seen or not each:
                continue
            seen.add(each)
            if each in self.initializers:
                found.append(self.initializers[each])
            elif (node := self.makers.get(each)) is not None:
                waiting += node.input[:1] if node.op_type == "DequantizeLinear" else node.input
        size = self.size(name)
        alike = [tensor for tensor in found if prod(tensor.dims) == size]
        if alike:
            alike.sort(key=lambda tensor: BITS[_FORMATS.get(tensor.data_type, "fp32")])
            return alike[-1]
        return max(found, key=lambda tensor: prod(tensor.dims), default=None)

    def given(self, name: str) -> int:
        """The format that an activation was rounded to, else the one it is in."""
        start = name
        while (node := self.makers.get(name)) is not None and node.op_type in _MOVES:
            name = node.input[0]
        if node is not None and node.op_type == "DequantizeLinear":
            zero = node.input[2] if len(node.input) > 2 else ""
            return self.format(zero) or self.format(node.input[0])
        return self.format(start)


def _count(model: ModelProto, facts: GraphFacts) -> None:
    reader = _Reader(model.graph)
    for node in model.graph.node:
        if reader.note(node):
            continue
        if node.op_type in _REST:
            facts.rest.add(_floats(reader, node))
        if node.op_type not in _PRODUCTS:
            facts.elements += sum(_sizes(reader, node.output))
            continue
        facts.operations += 2.0 * reader.size(node.output[0]) * _depth(reader, node)
        if reader.is_constant(node.input[1]):
            _add_product(reader, node, facts)
        elif not reader.is_constant(node.input[0]):
            facts.rest.add(_floats(reader, node))


def _floats(reader: _Reader, node: NodeProto) -> Number:
    """The format that an operator of the rest computes in."""
    found = _FORMATS.get(reader.format(node.input[0]))
    if found is None:
        raise NotReadable(f"{node.op_type} {node.name!r} is in a format we never write")
    return found


def _sizes(reader: _Reader, names: Iterable[str]) -> Iterator[int]:
    for name in filter(None, names):
        try:
            yield reader.size(name)
        except NotReadable:
            yield 1  # an unused output, or a number


def _depth(reader: _Reader, node: NodeProto) -> int:
    """How many multiplications make one number of a product."""
    if node.op_type == "Conv":
        return prod(reader.shape(node.input[1])[1:])
    shape = reader.shape(node.input[0])
    turned = any(a.name == "transA" and a.i for a in node.attribute)
    return shape[0] if turned else shape[-1]


def _add_product(reader: _Reader, node: NodeProto, facts: GraphFacts) -> None:
    stored = reader.stored(node.input[1])
    if stored is None:
        return
    weights = _FORMATS.get(stored.data_type)
    activations = _FORMATS.get(reader.given(node.input[0]))
    if weights is None or activations is None:
        raise NotReadable(f"{stored.name} is stored or multiplied in a format we never write")
    precision = LayerPrecision(weights=weights, activations=activations)
    product = Product(stored.name, node.op_type, "", 0, 1)
    size = prod(stored.dims) * BITS[weights] // 8
    own = Weight(size, precision, node.op_type == "Conv")
    facts.weights.setdefault(shown_name(product), own).runs += 1
    names = layer_names(product)
    if not names:
        facts.unnamed.append(stored.name)
    for name in names:
        facts.layers.setdefault(name, set()).add(precision)
    if names and not precision.rounds_inputs:
        facts.rest.add(activations)
