"""Fuse the refiner: K denoising steps and all that surrounds them become one graph.

Nodes of the step graph are sorted by what they depend on: those that see only the context move
out of the loop, those that see only the step number are evaluated now and become rows of a
table. What is left is the loop's body, which runs as an ONNX Loop or unrolled K times over
shared weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from libra_edge.compiler.graphs.export import OPSET, finish, opset_of
from libra_edge.policy.family import Tables

Form = Literal["loop", "unrolled"]
FORMS: tuple[Form, ...] = ("loop", "unrolled")
# Of a policy whose weights are felt: unrolled it is, and takes, more.
HEAVY_FORMS: tuple[Form, ...] = ("loop",)
# Inputs of the step graph: the loop's state and the rows of its tables; all others are context.
STATE = ("x", "previous")
ROWS = ("modulation", "coefficients")
# They broadcast, so a row of shape [1, 1, n] may as well be handed over as [n].
_BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div"})
# Weights of these types make products so cheap that handing them over would cost more.
_IN_THE_BODY = frozenset({TensorProto.INT8, TensorProto.INT4})
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SortedStep:
    """A step graph, sorted by dependence.

    hoisted: nodes of the context alone; body: nodes of x; rows: what the body reads of values
    that depend on the step number alone, each [K, ...]; outputs: the body's, in the order of STATE.
    """

    hoisted: list[NodeProto]
    body: list[NodeProto]
    weights: list[TensorProto]
    rows: dict[str, Array]
    outputs: tuple[str, ...]

    @property
    def carried(self) -> tuple[str, ...]:
        """The loop's state: `x`, and `previous` where the sampler remembers."""
        return STATE[: len(self.outputs)]


@dataclass(frozen=True)
class _Steps:
    """Nodes that turn `noise` into `sampled`, and the constants they read."""

    nodes: list[NodeProto]
    constants: dict[str, Array]


def fuse(
    context: onnx.ModelProto, step: onnx.ModelProto, tables: Tables, form: Form
) -> onnx.ModelProto:
    """Build the refiner: images, state, intent, noise → actions in physical units.

    Args:
        context: graph of what a chunk's steps share; its outputs are inputs of the step.
        step: graph of one denoising step.
        tables: the sampler, the modulation and the action's normalisation.
        form: `loop` or `unrolled`.
    """
    opset = max(opset_of(context), opset_of(step))
    before = _prefixed(context.graph, "context/", [*context.graph.input, *context.graph.output])
    parts = sort_step(_prefixed(step.graph, "step/", step.graph.input), tables, opset)
    if _in_integers(parts):
        parts = _without_idle_products(parts)
    shape = [dim.dim_value for dim in step.graph.input[0].type.tensor_type.shape.dim]
    rows = shape[0] - tables.first_row if tables.rows is None else tables.rows
    noise, actions = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
        for name, size in (("noise", shape), ("actions", [rows, len(tables.scale)]))
    )
    steps = _loop(parts) if form == "loop" else _unrolled(parts)
    inside = {tensor.name for tensor in (_own_weights(parts) if form == "loop" else [])}
    around = [tensor for tensor in parts.weights if tensor.name not in inside]
    finishing, finished = _finishing(tables, shape, rows)
    constants = {**finished, **steps.constants}
    if len(parts.carried) > 1:
        constants["nothing"] = np.zeros(shape, dtype=np.float32)
    graph = helper.make_graph(
        [*before.node, *parts.hoisted, *steps.nodes, *finishing],
        "refiner",
        [*before.input, noise],
        [actions],
        [*before.initializer, *around, *_tensors(constants)],
    )
    return finish(_model(graph, opset), "refiner", opset)


def _finishing(
    tables: Tables, shape: list[int], rows: int
) -> tuple[list[NodeProto], dict[str, Array]]:
    """`sampled` to `actions`: the chunk's rows and the action's columns, in physical units."""
    nodes = [
        helper.make_node("Mul", ["sampled", "action/scale"], ["scaled"], "action/multiply"),
        helper.make_node("Add", ["scaled", "action/offset"], ["actions"], "action/add"),
    ]
    constants: dict[str, Array] = {"action/scale": tables.scale, "action/offset": tables.offset}
    if [rows, len(tables.scale)] == shape:
        return nodes, constants
    bounds = {"starts": [tables.first_row, 0], "ends": [tables.first_row + rows, len(tables.scale)]}
    constants |= {f"action/{name}": np.array(at, dtype=np.int64) for name, at in bounds.items()}
    inputs = ["sampled", "action/starts", "action/ends"]
    nodes[0].input[0] = "chunk"
    return [helper.make_node("Slice", inputs, ["chunk"], "action/slice"), *nodes], constants


def sort_step(step: GraphProto, tables: Tables, opset: int = OPSET) -> SortedStep:
    """Sort the step's nodes by what they depend on, and evaluate those of the table."""
    group_of = {v.name: "row" if v.name in ROWS else "context" for v in step.input}
    group_of |= dict.fromkeys(STATE, "body")
    constant: list[NodeProto] = []
    for node in step.node:
        found = {group_of[name] for name in node.input if name in group_of}
        if found:
            group = found.pop() if len(found) == 1 else "body"
            # Integer weights times a row's scale stay integers.
            if group == "row" and node.op_type == "DequantizeLinear":
                group = "body"
            group_of |= dict.fromkeys(node.output, group)
        else:
            constant.append(node)
    # A weight is turned back into floats beside the product that reads it: engines look for the
    # two together, and what crossed the loop's border would be the large floats.
    for node in reversed(constant):
        readers = [other for other in step.node if node.output[0] in other.input]
        found = {group_of[other.output[0]] for other in readers}
        group_of |= dict.fromkeys(node.output, found.pop() if len(found) == 1 else "context")
    groups: dict[str, list[NodeProto]] = {"context": [], "row": [], "body": []}
    for node in step.node:
        groups[group_of[node.output[0]]].append(node)
    rows = _evaluate_rows(step, groups["row"], groups["body"], tables, opset)
    outputs = tuple(value.name for value in step.output)
    return SortedStep(groups["context"], groups["body"], list(step.initializer), rows, outputs)


def _evaluate_rows(
    step: GraphProto,
    nodes: Sequence[NodeProto],
    body: Sequence[NodeProto],
    tables: Tables,
    opset: int,
) -> dict[str, Array]:
    """The step-only values that the body reads, in the order of first use."""
    made = {name for node in nodes for name in node.output} | set(ROWS)
    read = [name for node in body for name in node.input if name in made]
    wanted = list(dict.fromkeys(read))
    inputs = [value for value in step.input if value.name in ROWS]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted]
    needed = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in step.initializer if tensor.name in needed]
    graph = helper.make_graph(nodes, "rows", inputs, outputs, constants)
    evaluator = ReferenceEvaluator(_model(graph, opset))
    results: list[Any] = [
        evaluator.run(None, dict(zip(ROWS, pair, strict=True)))
        for pair in zip(tables.modulation, tables.coefficients, strict=True)
    ]
    return {name: np.stack([row[i] for row in results]) for i, name in enumerate(wanted)}


def _loop(parts: SortedStep) -> _Steps:
    """One Loop node over the table; its body reads the weights from the graph around it.

    Integer weights lie in the body: what a body reads from around it is handed over in each step,
    and that costs more than small products do.
    """
    read, constants = _row_reader(parts)
    keep_on = helper.make_node("Identity", ["loop/condition"], ["loop/continue"], "loop/continue")
    unknown = (None, None)
    body = helper.make_graph(
        [keep_on, *read, *parts.body],
        "step",
        [
            helper.make_tensor_value_info("loop/step", TensorProto.INT64, ()),
            helper.make_tensor_value_info("loop/condition", TensorProto.BOOL, ()),
            *(helper.make_tensor_value_info(n, TensorProto.FLOAT, unknown) for n in parts.carried),
        ],
        [
            helper.make_tensor_value_info("loop/continue", TensorProto.BOOL, ()),
            *(helper.make_tensor_value_info(n, TensorProto.FLOAT, unknown) for n in parts.outputs),
        ],
    )
    body.initializer.extend(_own_weights(parts))
    start, ends = ["noise", "nothing"], ["sampled", "loop/clean"]
    count = len(parts.carried)
    # TensorRT's parser needs the condition that ONNX calls optional.
    inputs = ["loop/count", "loop/true", *start[:count]]
    loop = helper.make_node("Loop", inputs, ends[:count], "denoise", body=body)
    steps = len(next(iter(parts.rows.values())))
    constants |= {"loop/count": np.array(steps, dtype=np.int64), "loop/true": np.array(True)}
    return _Steps([loop], constants)


def _in_integers(parts: SortedStep) -> bool:
    """Whether products are so short that single operators around them count."""
    return any(tensor.data_type == TensorProto.INT8 for tensor in parts.weights)


def _without_idle_products(parts: SortedStep) -> SortedStep:
    """The same without products by numbers that are 0 or 1 in every step: a sampler has such."""
    same: dict[str, str] = {}
    nothing: set[str] = set()
    body = []
    for original in parts.body:
        node = _renamed(original, same) if same.keys() & set(original.input) else original
        result, pairs = node.output[0], (list(node.input), list(node.input)[::-1])
        for known, other in pairs if len(node.input) == 2 else ():
            values = parts.rows.get(known, np.zeros(0))
            one_number = node.op_type == "Mul" and values.size == len(values) > 0
            if one_number and (values == 0).all():
                nothing.add(result)
            elif (one_number and (values == 1).all()) or (
                node.op_type == "Add" and known in nothing
            ):
                same[result] = other
            else:
                continue
            break
        else:
            body.append(node)
    read = {name for node in body for name in node.input}
    rows = {name: values for name, values in parts.rows.items() if name in read}
    outputs = tuple(same.get(name, name) for name in parts.outputs)
    return replace(parts, body=body, rows=rows, outputs=outputs)


def _own_weights(parts: SortedStep) -> list[TensorProto]:
    """What only the body of a quantised step reads; empty for a step in floats."""
    if not _IN_THE_BODY & {tensor.data_type for tensor in parts.weights}:
        return []
    outside = {name for node in parts.hoisted for name in node.input}
    return [tensor for tensor in parts.weights if tensor.name not in outside]


def _row_reader(parts: SortedStep) -> tuple[list[NodeProto], dict[str, Array]]:
    """Nodes that read one row of the table, in two operators whatever it holds.

    Rows of 16-bit floats, where there are some, have a table of their own.
    """
    tables: dict[str, dict[str, Array]] = {}
    for name, values in parts.rows.items():
        suffix = "" if values.dtype == np.float32 else f".{values.dtype}"
        tables.setdefault(suffix, {})[name] = values
    nodes: list[NodeProto] = []
    constants: dict[str, Array] = {}
    for suffix, rows in tables.items():
        more, also = _table_reader(parts, rows, suffix)
        nodes += more
        constants |= also
    return nodes, constants


def _table_reader(
    parts: SortedStep, rows: Mapping[str, Array], suffix: str
) -> tuple[list[NodeProto], dict[str, Array]]:
    flat = [values.reshape(len(values), -1) for values in rows.values()]
    table, sizes, row = f"loop/table{suffix}", f"loop/sizes{suffix}", f"loop/row{suffix}"
    constants: dict[str, Array] = {
        table: np.concatenate(flat, axis=1),
        sizes: np.array([values.shape[1] for values in flat], dtype=np.int64),
    }
    nodes, names = [], []
    for i, (name, values) in enumerate(rows.items()):
        shape = values.shape[1:]
        readers = {node.op_type for node in parts.body if name in node.input}
        if len(shape) == 1 or (readers <= _BROADCASTING and np.prod(shape[:-1]) == 1):
            names.append(name)
            continue
        names.append(f"{name}.flat")
        wanted = f"loop/shape{suffix}.{i}"
        constants[wanted] = np.array(shape, dtype=np.int64)
        nodes.append(helper.make_node("Reshape", [names[-1], wanted], [name], name))
    gather = helper.make_node("Gather", [table, "loop/step"], [row], row)
    split = helper.make_node("Split", [row, sizes], names, f"loop/split{suffix}", axis=0)
    return [gather, split, *nodes], constants


def _unrolled(parts: SortedStep) -> _Steps:
    """K copies of the body over the same weights, each with its own row as constants."""
    made = {name for node in parts.body for name in node.output}
    steps = len(next(iter(parts.rows.values())))
    nodes: list[NodeProto] = []
    constants: dict[str, Array] = {}
    state = dict(zip(STATE, ("noise", "nothing"), strict=True))
    for k in range(steps):
        names = {name: f"{k}/{name}" for name in (*made, *parts.rows)} | state
        if k == steps - 1:
            names[parts.outputs[0]] = "sampled"
        constants |= {names[name]: values[k] for name, values in parts.rows.items()}
        nodes += [_renamed(node, names) for node in parts.body]
        state = {name: names[out] for name, out in zip(STATE, parts.outputs, strict=False)}
    return _Steps(nodes, constants)


def _prefixed(graph: GraphProto, prefix: str, keep: Iterable[onnx.ValueInfoProto]) -> GraphProto:
    """A copy with every name prefixed, but for the values in `keep`."""
    named = [tensor.name for tensor in (*graph.input, *graph.initializer)]
    named += [name for node in graph.node for name in node.output]
    names = {name: prefix + name for name in named} | {value.name: value.name for value in keep}
    result = GraphProto()
    result.CopyFrom(graph)
    for tensor in (*result.initializer, *result.input, *result.output):
        tensor.name = names[tensor.name]
    nodes = [_renamed(node, names) for node in graph.node]
    result.ClearField("node")
    result.node.extend(nodes)
    return result


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A copy with other value names; the node is called after its first output."""
    result = NodeProto()
    result.CopyFrom(node)
    result.input[:] = [names.get(name, name) for name in node.input]
    result.output[:] = [names.get(name, name) for name in node.output]
    result.name = result.output[0]
    return result


def _tensors(constants: dict[str, Array]) -> list[TensorProto]:
    return [numpy_helper.from_array(value, name) for name, value in constants.items()]


def _model(graph: GraphProto, opset: int) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
