"""Faults of single operators: another formula, axis, order or number, and work that is wasted."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from tests.attacks.engines.faults import Case, fault
from tests.attacks.engines.surgery import (
    after,
    bodies,
    constant,
    rename_output,
    store,
    tensor,
    values,
    weight,
)


def nodes(model: ModelProto, operator: str) -> list[NodeProto]:
    """All operators of a type, loops' bodies too."""
    return [n for g in bodies(model.graph) for n in g.node if n.op_type == operator]


def attribute(node: NodeProto, name: str, value: object) -> None:
    """Replace one attribute of an operator."""
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def behind(case_model: ModelProto, name: str, made: list[NodeProto], result: str) -> None:
    """Whoever read a value reads what `made` turns it into."""
    graph = next(g for g in bodies(case_model.graph) if any(name in n.output for n in g.node))
    after(graph, name, made, result)


@fault
def gelu_by_its_approximation(case: Case) -> None:
    for model in case.both:
        for node in nodes(model, "Gelu"):
            attribute(node, "approximate", "tanh")


@fault
def relu_for_one_gelu(case: Case) -> None:
    node = nodes(case.planner, "Gelu")[0]
    node.op_type = "Relu"
    del node.attribute[:]


@fault
def layer_norm_with_a_larger_epsilon(case: Case) -> None:
    for node in nodes(case.refiner, "LayerNormalization"):
        attribute(node, "epsilon", 1e-2)


@fault
def group_norm_with_a_larger_epsilon(case: Case) -> None:
    for node in nodes(case.planner, "InstanceNormalization"):
        attribute(node, "epsilon", 1e-2)


@fault
def hard_sigmoid_in_the_stem(case: Case) -> None:
    nodes(case.refiner, "Sigmoid")[0].op_type = "HardSigmoid"


@fault
def attention_a_tenth_too_sharp(case: Case) -> None:
    node = nodes(case.planner, "Softmax")[0]
    graph = next(g for g in bodies(case.planner.graph) if node in g.node)
    factor = constant(graph, "harm.sharp", 1.1, np.float32)
    made = helper.make_node("Mul", [node.input[0], factor], ["harm.sharper"])
    behind(case.planner, node.input[0], [made], "harm.sharper")


@fault
def residual_connection_lost(case: Case) -> None:
    weights = {t.name for g in bodies(case.planner.graph) for t in g.initializer}
    adds = [n for n in nodes(case.planner, "Add") if not weights & set(n.input)]
    lost = adds[-1]
    lost.op_type = "Identity"
    del lost.input[0]


@fault
def convolution_with_its_padding_on_one_side(case: Case) -> None:
    attribute(nodes(case.refiner, "Conv")[0], "pads", [2, 2, 0, 0])


@fault
def convolution_kernels_mirrored(case: Case) -> None:
    kernel = tensor(case.planner, "images.stem.3.weight")
    store(kernel, values(kernel)[..., ::-1])


@fault
def channels_of_a_convolution_swapped(case: Case) -> None:
    kernel = tensor(case.refiner, "images.stem.3.weight")
    store(kernel, np.roll(values(kernel), 1, axis=1))


@fault
def bias_of_a_convolution_lost(case: Case) -> None:
    bias = tensor(case.planner, "images.stem.6.bias")
    store(bias, np.zeros_like(values(bias)))


@fault
def bias_of_one_layer_lost(case: Case) -> None:
    bias = tensor(case.refiner, "blocks.0.mlp.0.bias")
    store(bias, np.zeros_like(values(bias)))


@fault
def keys_for_values(case: Case) -> None:
    for name in ("weight", "bias"):
        stored = tensor(case.planner, f"backbone.blocks.0.attention.key_value.{name}")
        both = values(stored)
        store(stored, np.roll(both, both.shape[-1] // 2, axis=-1))


@fault
def one_output_of_the_refiner_two_percent_larger(case: Case) -> None:
    matrix = weight(case.refiner, "refiner.output")
    changed = values(matrix)
    changed[:, 0] *= 1.02
    store(matrix, changed)


@fault
def small_weights_pruned(case: Case) -> None:
    matrix = weight(case.refiner, "blocks.0.mlp.2")
    kept = values(matrix)
    kept[np.abs(kept) < np.percentile(np.abs(kept), 20)] = 0.0
    store(matrix, kept)


@fault
def one_layer_rounded_to_eight_bits(case: Case) -> None:
    matrix = weight(case.planner, "backbone.blocks.0.mlp.0")
    kept = values(matrix)
    scale = np.abs(kept).max() / 127
    store(matrix, np.round(kept / scale) * scale)


@fault
def norm_weight_of_another_block(case: Case) -> None:
    gain = tensor(case.planner, "backbone.blocks.0.norm_attention.weight")
    store(gain, values(tensor(case.planner, "backbone.blocks.0.norm_mlp.weight")))


def _through_half(model: ModelProto, output: str) -> None:
    inner = rename_output(model, output)
    model.graph.node.append(
        helper.make_node("Cast", [inner], ["harm.half"], to=TensorProto.FLOAT16)
    )
    model.graph.node.append(helper.make_node("Cast", ["harm.half"], [output], to=TensorProto.FLOAT))


@fault
def actions_through_sixteen_bits(case: Case) -> None:
    _through_half(case.refiner, "actions")


@fault
def margins_rounded_to_a_hundredth(case: Case) -> None:
    _in_steps(case.planner, "margin", 100.0)


def _in_steps(model: ModelProto, output: str, steps: float) -> None:
    graph, inner = model.graph, rename_output(model, output)
    number = constant(graph, "harm.steps", steps, np.float32)
    graph.node.append(helper.make_node("Mul", [inner, number], ["harm.scaled"]))
    graph.node.append(helper.make_node("Round", ["harm.scaled"], ["harm.whole"]))
    graph.node.append(helper.make_node("Div", ["harm.whole", number], [output]))


@fault
def actions_rounded_to_a_hundredth(case: Case) -> None:
    _in_steps(case.refiner, "actions", 100.0)


@fault
def margin_of_another_size(case: Case) -> None:
    graph, inner = case.planner.graph, rename_output(case.planner, "margin")
    two = constant(graph, "harm.two", 2.0, np.float32)
    graph.node.append(helper.make_node("Mul", [inner, two], ["margin"]))


@fault
def last_planned_step_repeated(case: Case) -> None:
    graph, steps = case.planner.graph, case.manifest.policy.plan_steps
    inner = rename_output(case.planner, "intent")
    rows = constant(graph, "harm.rows", [*range(steps - 1), steps - 2], np.int64)
    graph.node.append(helper.make_node("Gather", [inner, rows], ["intent"], axis=0))


@fault
def highest_bin_never_planned(case: Case) -> None:
    graph, inner = case.planner.graph, rename_output(case.planner, "intent")
    last = constant(graph, "harm.last", case.manifest.policy.bins - 2, np.int32)
    graph.node.append(helper.make_node("Min", [inner, last], ["intent"]))


@fault
def noise_of_the_last_step_lost(case: Case) -> None:
    graph = case.refiner.graph
    mask = np.ones((case.chunk, case.dims))
    mask[-1] = 0.0
    kept = constant(graph, "harm.mask", mask, np.float32)
    made = helper.make_node("Mul", ["noise", kept], ["harm.quiet"])
    after(graph, "noise", [made], "harm.quiet")


@fault
def large_noise_clipped(case: Case) -> None:
    graph = case.refiner.graph
    low, high = (constant(graph, f"harm.{v}", v, np.float32) for v in (-1.5, 1.5))
    after(
        graph, "noise", [helper.make_node("Clip", ["noise", low, high], ["harm.calm"])], "harm.calm"
    )


@fault
def last_denoising_step_two_percent_off(case: Case) -> None:
    table = tensor(case.refiner, "loop/table")
    changed = values(table)
    changed[-1] *= 1.02
    store(table, changed)


@fault
def one_denoising_step_alone(case: Case) -> None:
    store(tensor(case.refiner, "loop/count"), np.array(1))


@fault
def offset_of_one_action(case: Case) -> None:
    offset = tensor(case.refiner, "action/offset")
    changed = values(offset)
    changed[0] += 0.001
    store(offset, changed)


# Work that is wasted: the numbers are right.


@fault
def every_product_done_four_times(case: Case) -> None:
    for model in case.both:
        for graph in bodies(model.graph):
            for node in [n for n in graph.node if n.op_type in ("Gemm", "Conv")]:
                _four_times(graph, node)


def _four_times(graph: object, node: NodeProto) -> None:
    name = node.output[0]
    copies = []
    for i in range(3):
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{node.name}.again.{i}"
        copy.output[:] = [f"{name}.again.{i}"]
        copies.append(copy)
    shares = [*(copy.output[0] for copy in copies), name]
    mean = helper.make_node("Mean", shares, [f"{name}.mean"])
    after(graph, name, [*copies, mean], f"{name}.mean")
    # `mean` itself reads the value it stands for.
    made = next(n for n in graph.node if n.output[0] == f"{name}.mean")
    made.input[:] = shares


@fault
def elements_computed_for_nothing(case: Case) -> None:
    graph = case.refiner.graph
    chain, name = [], "harm.pixels"
    chain.append(helper.make_node("Cast", ["images"], [name], to=TensorProto.FLOAT))
    for i in range(200):
        chain.append(helper.make_node("Erf", [name], [f"harm.erf.{i}"]))
        name = f"harm.erf.{i}"
    zero = constant(graph, "harm.zero", 0.0, np.float32)
    chain.append(helper.make_node("ReduceMax", [name], ["harm.sum"], keepdims=0))
    chain.append(helper.make_node("Mul", ["harm.sum", zero], ["harm.nothing"]))
    inner = rename_output(case.refiner, "actions")
    graph.node.extend(chain)
    graph.node.append(helper.make_node("Add", [inner, "harm.nothing"], ["actions"]))


@fault
def a_large_product_for_nothing(case: Case) -> None:
    graph = case.planner.graph
    wide = constant(graph, "harm.wide", case.random.standard_normal((case.dims, 4096)), np.float32)
    deep = constant(graph, "harm.deep", np.zeros((4096, case.dims)), np.float32)
    inner = rename_output(case.planner, "margin")
    graph.node.append(helper.make_node("MatMul", [inner, wide], ["harm.many"]))
    graph.node.append(helper.make_node("MatMul", ["harm.many", deep], ["harm.none"]))
    graph.node.append(helper.make_node("Add", [inner, "harm.none"], ["margin"]))
