"""Small operations on ONNX graphs, for doing them harm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper


def bodies(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph, and the bodies of its loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from bodies(attribute.g)


def tensor(model: ModelProto, suffix: str) -> TensorProto:
    """The one initialiser whose name ends with `suffix`."""
    found = [t for g in bodies(model.graph) for t in g.initializer if t.name.endswith(suffix)]
    assert len(found) == 1, f"{suffix}: {[t.name for t in found]}"
    return found[0]


def weight(model: ModelProto, layer: str) -> TensorProto:
    """The weight [in, out] of the linear layer whose bias is called `…layer.bias`."""
    return tensor(model, product(model, layer).input[1])


def product(model: ModelProto, layer: str) -> NodeProto:
    """The node of that linear layer."""
    found = [
        node
        for graph in bodies(model.graph)
        for node in graph.node
        if node.op_type == "Gemm" and node.input[2].endswith(f"{layer}.bias")
    ]
    assert len(found) == 1, f"{layer}: {len(found)} products"
    return found[0]


def values(stored: TensorProto) -> np.ndarray:
    """A copy of an initialiser's values."""
    return numpy_helper.to_array(stored).copy()


def store(stored: TensorProto, new: np.ndarray) -> None:
    """Replace an initialiser's values."""
    old = values(stored)
    assert not np.array_equal(old, new, equal_nan=True), f"{stored.name}: no harm done"
    stored.CopyFrom(numpy_helper.from_array(new.astype(old.dtype), stored.name))


def constant(graph: GraphProto, name: str, value: object, dtype: type) -> str:
    """Add an initialiser."""
    graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
    return name


def after(graph: GraphProto, name: str, nodes: Sequence[NodeProto], result: str) -> None:
    """Whoever read `name` reads `result` instead, which `nodes` make of it."""
    for node in graph.node:
        node.input[:] = [result if each == name else each for each in node.input]
    makers = [i for i, node in enumerate(graph.node) if name in node.output]
    place = makers[0] + 1 if makers else 0
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*rest[:place], *nodes, *rest[place:]])


def gather(model: ModelProto, name: str, axis: int, indices: Sequence[int]) -> None:
    """Reorder an input or an inner value along one axis."""
    graph = model.graph
    index = constant(graph, "harm.index", indices, np.int64)
    node = helper.make_node("Gather", [name, index], ["harm.gathered"], "harm", axis=axis)
    after(graph, name, [node], "harm.gathered")


def multiply(model: ModelProto, name: str, factor: object, dtype: type = np.float32) -> None:
    """Multiply an input or an inner value."""
    by = constant(model.graph, "harm.factor", factor, dtype)
    after(
        model.graph, name, [helper.make_node("Mul", [name, by], ["harm.product"])], "harm.product"
    )


def rename_output(model: ModelProto, name: str) -> str:
    """Free an output's name, so that nodes can be put before it; returns the value's new name."""
    inner = f"harm.{name}"
    for node in model.graph.node:
        node.output[:] = [inner if each == name else each for each in node.output]
        node.input[:] = [inner if each == name else each for each in node.input]
    return inner
