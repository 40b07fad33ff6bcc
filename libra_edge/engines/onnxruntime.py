"""ONNX Runtime: the engine is the plain ONNX graph, optimised when it is loaded.

Saving ONNX Runtime's own optimised graph would tie a release to the build machine's instruction
set; loading costs a fraction of a second.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime as ort

from libra_edge.catalog import Target, TargetEngine
from libra_edge.engines.base import BuiltEngine, Engine, Product, Program, QdqForm
from libra_edge.engines.session import options_of

# Which operators multiply by weights, what they do it in, and which input holds the weights.
_INTEGER = {
    "QGemm": 3,
    "MatMulIntegerToFloat": 1,
    "QLinearMatMul": 3,
    "MatMulInteger": 1,
    "DynamicQuantizeMatMul": 1,
    "QLinearConv": 3,
    "ConvInteger": 1,
}
_FLOAT = {
    "Gemm": 1,
    "MatMul": 1,
    "FusedMatMul": 1,
    "FusedGemm": 1,
    "Conv": 1,
    "FusedConv": 1,
    "MatMulNBits": 1,
}
# Floats are multiplied by rounded weights as they are only if asked: by default the kernel rounds
# them to 8 bits, each call anew, which nothing has simulated.
_FLOAT_LEVEL = "1"
_REORDERED = "_nchwc"
# What it puts before the names of 16-bit weights and products that it turns into 32-bit ones.
_WIDENED = re.compile(r"(FusedBack_|InsertedPrecisionFreeCast_)+")
_AS_FLOATS = {"session.qdq_matmulnbits_accuracy_level": _FLOAT_LEVEL}
_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice")


class OnnxRuntimeEngine(Engine):
    """Engines for ONNX Runtime's execution providers."""

    kind = "onnxruntime"
    # The one form in which the CPU kernels multiply integers; docs/decisions/0030 has the figures.
    qdq = QdqForm(unsigned_activations=True, integer_bias=True, images_in_integers=True, flat=True)

    kernels = frozenset({"int8", "int4 weights, fp32 activations"})

    def build(
        self,
        model: bytes,
        settings: TargetEngine,
        target: Target,
        program: Program | None = None,
    ) -> BuiltEngine:
        """Keep the graph as it is; loading it on the CPU shows that ONNX Runtime takes it."""
        options = settings.session_options | (_AS_FLOATS if _multiplies_floats(model) else {})
        session = self.load(model, "CPUExecutionProvider", options)
        return BuiltEngine(
            self.kind,
            settings.provider,
            options,
            model,
            session.inputs,
            session.outputs,
            graph=model,
        )

    def products(self, built: BuiltEngine) -> list[Product]:
        """Read off the graph that ONNX Runtime made of the engine on this machine."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "optimised.onnx")
            options = options_of(built.session_options, 1)
            options.optimized_model_filepath = str(path)
            ort.InferenceSession(built.content, options, providers=["CPUExecutionProvider"])
            found = _products(onnx.load(path).graph, {}, 1)
        reordered = [p.weight for p in found if p.weight.endswith(_REORDERED)]
        names = _convolutions(onnx.ModelProto.FromString(built.content).graph, reordered)
        return [
            replace(product, weight=names.get(product.weight, product.weight)) for product in found
        ]


ENGINE = OnnxRuntimeEngine()


# What becomes part of the convolution before it.
_MERGED = ("Add", "Sum", "Relu", "Sigmoid", "Tanh", "Clip", "LeakyRelu", "HardSigmoid")


def _multiplies_floats(model: bytes) -> bool:
    """Whether some product is of rounded weights and of floats that are not."""
    return any(map(_has_mixed_product, _graphs(onnx.ModelProto.FromString(model).graph)))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _has_mixed_product(graph: onnx.GraphProto) -> bool:
    makers = {name: node for node in graph.node for name in node.output}

    def rounded(name: str) -> bool:
        while (node := makers.get(name)) is not None and node.op_type in _MOVES:
            name = node.input[0]
        return node is not None and node.op_type == "DequantizeLinear"

    products = (node for node in graph.node if node.op_type in ("MatMul", "Gemm"))
    return any(rounded(node.input[1]) and not rounded(node.input[0]) for node in products)


def _products(graph: onnx.GraphProto, outer: Mapping[str, int], runs: int) -> list[Product]:
    """Products with weights of a graph and, times their iterations, of its loops."""
    sizes = dict(outer) | {t.name: len(t.raw_data) or t.ByteSize() for t in graph.initializer}
    counts = {t.name: t for t in graph.initializer}
    # A weight that is turned back into floats first is still the one that is moved.
    origin: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in ("DequantizeLinear", "Cast"):
            origin[node.output[0]] = origin.get(node.input[0], node.input[0])
    found = []
    for node in graph.node:
        if node.op_type == "Loop":
            # Its count is a constant; the weights of its body may lie in either graph.
            trips = int(onnx.numpy_helper.to_array(counts[node.input[0]]))
            found += _products(node.attribute[0].g, sizes, runs * trips)
            continue
        at = _INTEGER.get(node.op_type, _FLOAT.get(node.op_type))
        if at is None:
            continue
        name = origin.get(node.input[at], node.input[at])
        if name in sizes:
            weight = name.removesuffix("_T") if node.op_type == "MatMulNBits" else name
            if node.name.endswith(_REORDERED):
                weight = node.name
            weight = _WIDENED.sub("", weight, count=1)
            found.append(Product(weight, node.op_type, _precision(node), sizes[name], runs))
    return found


def _convolutions(graph: onnx.GraphProto, reordered: Sequence[str]) -> dict[str, str]:
    """What ONNX Runtime calls a convolution whose weights it has reordered → the weights' name.

    It is called after the last operator that became part of it: a sum, an activation. Of two
    convolutions whose sum that is, the one that is not there under its own name was merged.
    """
    nodes = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    wanted = [name.removesuffix(_REORDERED) for name in reordered]
    found = {name: nodes[name].input[1] for name in wanted if name in nodes}
    left = [name for name in nodes if name not in found]
    for name in left:
        after = name
        while len(readers.get(after, ())) == 1 and readers[after][0].op_type in _MERGED:
            after = readers[after][0].output[0]
            if after in wanted and after not in found:
                found[after] = nodes[name].input[1]
                break
    return {f"{name}{_REORDERED}": weight for name, weight in found.items()}


def _precision(node: onnx.NodeProto) -> str:
    """What a product is computed in, as `libra_edge.catalog.LayerPrecision` writes it."""
    if node.op_type in _INTEGER:
        return "int8"
    if node.op_type != "MatMulNBits":
        return "fp32"
    attributes = {a.name: a.i for a in node.attribute}
    floats = attributes.get("accuracy_level", 0) == int(_FLOAT_LEVEL)
    return f"int{attributes['bits']} weights, {'fp32' if floats else 'int8'} activations"
