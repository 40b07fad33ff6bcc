"""Graphs whose loops are written out, so that every value of every denoising step has a name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper


def with_stored_constants(model: ModelProto) -> ModelProto:
    """The same graph with every constant stored, also those that an operator makes, in bodies too.

    Raises:
        ValueError: a constant is neither a tensor nor plain numbers.
    """
    result = ModelProto()
    result.CopyFrom(model)
    _store(result.graph)
    return result


def _store(graph: GraphProto) -> None:
    rest = list(graph.node)
    del graph.node[:]
    for node in rest:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            graph.initializer.append(_constant(node))
            continue
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _store(attribute.g)
        graph.node.append(node)


def _constant(node: NodeProto) -> TensorProto:
    form, name = node.attribute[0], node.output[0]
    stored = TensorProto()
    if form.name == "value":
        stored.CopyFrom(form.t)
        stored.name = name
        return stored
    dtypes = {"float": np.float32, "floats": np.float32, "int": np.int64, "ints": np.int64}
    kind = form.name.removeprefix("value_")
    if kind not in dtypes:
        raise ValueError(f"constant {name!r} is given as {form.name}")
    value = np.array(helper.get_attribute_value(form), dtypes[kind])
    return numpy_helper.from_array(value, name)


def unrolled(model: ModelProto) -> ModelProto:
    """The graph with its loops written out; values of step k are called `k/…`."""
    result = with_stored_constants(model)
    rest = list(result.graph.node)
    del result.graph.node[:]
    for node in rest:
        if node.op_type == "Loop":
            result.graph.node.extend(_written_out(node, result.graph))
        else:
            result.graph.node.append(node)
    return result


def _written_out(loop: NodeProto, graph: GraphProto) -> Iterator[NodeProto]:
    body = loop.attribute[0].g
    graph.initializer.extend(body.initializer)
    counter, condition, *carried = [value.name for value in body.input]
    made = [name for node in body.node for name in node.output]
    current = list(loop.input[2:])
    for k in range(trips(loop, graph)):
        names = {name: f"{k}/{name}" for name in (*made, counter, condition)}
        graph.initializer.append(numpy_helper.from_array(np.array(k, np.int64), names[counter]))
        graph.initializer.append(numpy_helper.from_array(np.array(True), names[condition]))
        names |= dict(zip(carried, current, strict=True))
        for node in body.node:
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.name = f"{k}/{node.name}" if node.name else ""
            copy.input[:] = [names.get(each, each) for each in node.input]
            copy.output[:] = [names.get(each, each) for each in node.output]
            yield copy
        current = [names.get(value.name, value.name) for value in body.output[1:]]
    for inner, outer in zip(current, loop.output, strict=True):
        yield helper.make_node("Identity", [inner], [outer], outer)


def trips(loop: NodeProto, graph: GraphProto) -> int:
    """How often a loop of fixed length runs."""
    count = next(each for each in graph.initializer if each.name == loop.input[0])
    return int(numpy_helper.to_array(count))


def with_partial_samples(model: ModelProto) -> ModelProto:
    """The refiner with the noisy actions [H, D] after each denoising step as its only outputs.

    They are found by where the noise enters: what the second step reads in its place is what the
    first one made. None are found where noise does not enter a first step.
    """
    result = unrolled(model)
    made = {output: node for node in result.graph.node for output in node.output}
    entry = next((node for node in result.graph.node if "noise" in node.input), None)
    names: list[str] = []
    if entry is not None and "sampled" in made:
        place, (_, _, own) = list(entry.input).index("noise"), entry.output[0].partition("/")
        while (following := made.get(f"{len(names) + 1}/{own}")) is not None:
            names.append(following.input[place])
        names.append("sampled")
    noise = next(value for value in result.graph.input if value.name == "noise")
    shape = [dim.dim_value for dim in noise.type.tensor_type.shape.dim]
    del result.graph.output[:]
    result.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names
    )
    return result
