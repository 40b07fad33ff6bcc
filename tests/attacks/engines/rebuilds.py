"""Good releases whose graphs are written another way: no fault, and no alarm."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
from onnx import GraphProto, helper

from tests.attacks.engines.faults import Case
from tests.attacks.engines.surgery import bodies, constant


def erf_written_out(case: Case) -> None:
    """Every Gelu as x / 2 (1 + erf(x / sqrt 2))."""
    for model in case.both:
        for graph in bodies(model.graph):
            _write_out(graph)


def _write_out(graph: GraphProto) -> None:
    rest = list(graph.node)
    del graph.node[:]
    for node in rest:
        if node.op_type != "Gelu":
            graph.node.append(node)
            continue
        given, made = node.input[0], node.output[0]
        numbers = {"root": 1 / sqrt(2), "one": 1.0, "half": 0.5}
        names = {n: constant(graph, f"{made}/{n}", v, np.float32) for n, v in numbers.items()}
        steps = [
            ("Mul", [given, names["root"]], f"{made}/scaled"),
            ("Erf", [f"{made}/scaled"], f"{made}/erf"),
            ("Add", [f"{made}/erf", names["one"]], f"{made}/raised"),
            ("Mul", [given, f"{made}/raised"], f"{made}/twice"),
            ("Mul", [f"{made}/twice", names["half"]], made),
        ]
        graph.node.extend(helper.make_node(op, inputs, [out], out) for op, inputs, out in steps)


def operators_in_another_order(case: Case) -> None:
    """Sums with their terms the other way round."""
    for model in case.both:
        for graph in bodies(model.graph):
            for node in graph.node:
                if node.op_type in ("Add", "Mul"):
                    node.input[:] = list(node.input)[::-1]


def values_renamed(case: Case) -> None:
    """Inner values under other names; weights keep theirs."""
    for model in case.both:
        graph = model.graph
        fixed = {v.name for v in (*graph.input, *graph.output)}
        made = {name for node in graph.node for name in node.output} - fixed
        names = {name: f"v/{name}" for name in made}
        for each in bodies(graph):
            for node in each.node:
                node.input[:] = [names.get(name, name) for name in node.input]
                node.output[:] = [names.get(name, name) for name in node.output]


def small_constants_as_operators(case: Case) -> None:
    """Numbers and short vectors made by a Constant each, in the bodies of loops too."""
    for model in case.both:
        for graph in bodies(model.graph):
            small = [t for t in graph.initializer if np.prod(t.dims) <= 16]
            kept = [t for t in graph.initializer if np.prod(t.dims) > 16]
            del graph.initializer[:]
            graph.initializer.extend(kept)
            nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in small]
            rest = list(graph.node)
            del graph.node[:]
            graph.node.extend([*nodes, *rest])


def every_weight_as_an_operator(case: Case) -> None:
    """No initialiser is left at all."""
    for model in case.both:
        for graph in bodies(model.graph):
            nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in graph.initializer]
            rest = list(graph.node)
            del graph.initializer[:]
            del graph.node[:]
            graph.node.extend([*nodes, *rest])


def products_with_nothing_added(case: Case) -> None:
    """Every Gemm as MatMul and Add."""
    for model in case.both:
        for graph in bodies(model.graph):
            rest = list(graph.node)
            del graph.node[:]
            for node in rest:
                turned = any(a.name in ("transA", "transB") and a.i for a in node.attribute)
                if node.op_type != "Gemm" or turned or len(node.input) < 3:
                    graph.node.append(node)
                    continue
                left, right, bias = node.input
                made = node.output[0]
                graph.node.append(
                    helper.make_node("MatMul", [left, right], [f"{made}/product"], node.name)
                )
                graph.node.append(helper.make_node("Add", [f"{made}/product", bias], [made]))


REBUILDS: dict[str, Callable[[Case], None]] = {
    "Erf written out": erf_written_out,
    "terms in another order": operators_in_another_order,
    "values renamed": values_renamed,
    "small constants as operators": small_constants_as_operators,
    "every weight as an operator": every_weight_as_an_operator,
    "sums apart from products": products_with_nothing_added,
}
