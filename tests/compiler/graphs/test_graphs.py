"""Split, export and fuse: every graph computes what the policy computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from libra_edge.catalog import load_recipe
from libra_edge.compiler.graphs.export import OPSET, export, from_bytes, to_bytes
from libra_edge.compiler.graphs.fuse import FORMS, fuse, sort_step
from libra_edge.compiler.graphs.staged_engines import as_written, exported_engines, split_engines
from libra_edge.engines.onnxruntime import ENGINE
from libra_edge.engines.session import EnginePair
from libra_edge.errors import InputError
from libra_edge.evaluation.torch_controller import TorchEngines
from libra_edge.parity.gates import compare_chain, require_pass, run_engines
from libra_edge.parity.samples import synthetic_samples
from libra_edge.policy.family import Graph, Tables
from tests.compiler.conftest import Fronts
from tests.compiler.variants import LOOPS, VARIANTS

SIGNATURES = {
    "planner": (["images", "instruction", "state"], ["intent", "margin"]),
    "refiner": (["images", "state", "intent", "noise"], ["actions"]),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_stage_is_the_policy(fronts: Fronts, name: str) -> None:
    checkpoint, front = fronts(name)
    config = checkpoint.config
    samples = synthetic_samples(config.embodiment, config, checkpoint.tokenizer, 6, seed=3)
    planner = ENGINE.load(front.planner, "CPUExecutionProvider", {})
    chain = [
        ("torch", TorchEngines(checkpoint.policy)),
        ("split", split_engines(front.parts)),
        ("exported", exported_engines(front.exported, front.parts.tables)),
    ]
    for form, refiner in front.refiners.items():
        chain.append((form, EnginePair(planner, as_written(refiner))))
        optimized = ENGINE.load(refiner, "CPUExecutionProvider", {})
        chain.append((f"{form}, optimised", EnginePair(planner, optimized)))
    checks = compare_chain(chain, samples, config.embodiment.actions, load_recipe("fp32").gates)
    require_pass(checks)
    assert len(checks) == 5 * (len(chain) - 1)


@pytest.mark.parametrize("name", LOOPS)
def test_loop_equals_unrolled(fronts: Fronts, name: str) -> None:
    checkpoint, front = fronts(name)
    config = checkpoint.config
    samples = synthetic_samples(config.embodiment, config, checkpoint.tokenizer, 4, seed=4)
    planner = as_written(front.planner)
    loop, unrolled = (
        run_engines(EnginePair(planner, as_written(front.refiners[form])), samples).actions
        for form in FORMS
    )
    np.testing.assert_allclose(loop, unrolled, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_signatures_keep_inputs_that_are_not_used(fronts: Fronts, name: str) -> None:
    _, front = fronts(name)
    graphs = {"planner": [front.planner], "refiner": list(front.refiners.values())}
    for graph, models in graphs.items():
        for model in models:
            session = ENGINE.load(model, "CPUExecutionProvider", {})
            names = [spec.name for spec in session.inputs], [spec.name for spec in session.outputs]
            assert names == SIGNATURES[graph]


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_of_this_machine_is_in_a_graph(fronts: Fronts, name: str) -> None:
    _, front = fronts(name)
    for content in (*front.exported.values(), *front.refiners.values()):
        model = from_bytes(content)
        assert len(model.metadata_props) == 0
        assert model.doc_string == ""
        for trace in (
            str(Path.cwd()),
            str(Path(__file__).parents[3]),
            "/home",
            ".py",
            "stack_trace",
        ):
            assert trace.encode() not in content


def test_only_what_depends_on_the_noisy_action_is_in_the_loop(fronts: Fronts) -> None:
    _, front = fronts("ddim_sample")
    graph = from_bytes(front.refiners["loop"]).graph
    (loop,) = (node for node in graph.node if node.op_type == "Loop")
    body = loop.attribute[0].g
    assert len(loop.output) == 1, "DDIM remembers nothing"
    assert sum(node.op_type == "Conv" for node in graph.node) == 3
    assert not any(node.op_type == "Conv" for node in body.node)
    inside = {"x", "loop/step", "loop/condition"}
    weights = {tensor.name for tensor in graph.initializer}
    for node in body.node:
        reads = [name for name in node.input if name not in weights]
        if node.op_type not in ("Gather", "Split", "Identity"):
            assert inside & set(reads), f"{node.name} could be hoisted"
        inside |= set(node.output)


def test_multistep_solver_remembers_one_sample(fronts: Fronts) -> None:
    _, front = fronts("dpm_velocity")
    (loop,) = (n for n in from_bytes(front.refiners["loop"]).graph.node if n.op_type == "Loop")
    assert len(loop.output) == 2


def test_unrolled_copies_share_their_weights(fronts: Fronts) -> None:
    _, front = fronts("ddim_sample")
    sizes = {form: len(content) for form, content in front.refiners.items()}
    step = len(front.exported["step"])
    assert sizes["unrolled"] < sizes["loop"] + 4 * step / 2
    names = [t.name for t in from_bytes(front.refiners["unrolled"]).graph.initializer]
    assert len(names) == len(set(names))


def hand_made_step() -> onnx.GraphProto:
    """x + (context·2)·(row·3) and x @ row[as 2 x 2]: each kind of dependence once."""
    nodes = [
        helper.make_node("Mul", ["context.a", "two"], ["hoisted"]),
        helper.make_node("Mul", ["coefficients", "three"], ["row"]),
        helper.make_node("Mul", ["hoisted", "row"], ["mixed"]),
        helper.make_node("Add", ["x", "mixed"], ["moved"]),
        helper.make_node("Reshape", ["modulation", "shape"], ["matrix"]),
        helper.make_node("MatMul", ["moved", "matrix"], ["x_next"]),
    ]
    values = {"x": (3, 2), "modulation": (4,), "coefficients": (2,), "context.a": (3, 2)}
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in values.items()]
    constants = {
        "two": np.float32(2),
        "three": np.float32(3),
        "shape": np.array([2, 2], dtype=np.int64),
    }
    return helper.make_graph(
        nodes,
        "step",
        inputs,
        [helper.make_tensor_value_info("x_next", TensorProto.FLOAT, (3, 2))],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )


def hand_made_tables() -> Tables:
    random = np.random.default_rng(0)
    modulation, coefficients, scale, offset = (
        random.normal(size=shape).astype(np.float32) for shape in ((3, 4), (3, 2), 2, 2)
    )
    return Tables(modulation, coefficients, False, scale, offset)


def test_nodes_are_sorted_by_what_they_depend_on() -> None:
    tables = hand_made_tables()
    parts = sort_step(hand_made_step(), tables)
    assert [node.output[0] for node in parts.hoisted] == ["hoisted"]
    assert [node.output[0] for node in parts.body] == ["mixed", "moved", "x_next"]
    assert list(parts.rows) == ["row", "matrix"]
    np.testing.assert_array_equal(parts.rows["row"], tables.coefficients * np.float32(3))
    assert parts.rows["matrix"].shape == (3, 2, 2)


@pytest.mark.parametrize("form", FORMS)
def test_fusing_a_hand_made_step(form: str) -> None:
    tables = hand_made_tables()
    source = helper.make_tensor_value_info("state", TensorProto.FLOAT, (3, 2))
    context_a = helper.make_tensor_value_info("context.a", TensorProto.FLOAT, (3, 2))
    identity = helper.make_node("Neg", ["state"], ["context.a"])
    context, step = (
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        for graph in (
            helper.make_graph([identity], "context", [source], [context_a]),
            hand_made_step(),
        )
    )
    session = as_written(to_bytes(fuse(context, step, tables, form)))
    random = np.random.default_rng(1)
    state, x = (random.normal(size=(3, 2)).astype(np.float32) for _ in range(2))
    found = session.run({"state": state, "noise": x})["actions"]
    for modulation, coefficients in zip(tables.modulation, tables.coefficients, strict=True):
        x = (x + -state * 2 * (coefficients * 3)) @ modulation.reshape(2, 2)
    np.testing.assert_allclose(found, x * tables.scale + tables.offset, rtol=1e-5)


def test_weights_beyond_one_file_are_refused() -> None:
    module = nn.Module()
    module.register_parameter("w", nn.Parameter(torch.empty(2**29, device="meta")))
    with pytest.raises(InputError, match="model-too-large"):
        export(Graph("planner", module, (), (), ()))


def test_another_policy_does_not_pass(fronts: Fronts) -> None:
    checkpoint, front = fronts("flow_euler")
    other, _ = fronts("ddim_sample")
    config = checkpoint.config
    samples = synthetic_samples(config.embodiment, config, checkpoint.tokenizer, 4, seed=5)
    chain = [
        ("other", TorchEngines(other.policy)),
        ("engine", EnginePair(as_written(front.planner), as_written(front.refiners["loop"]))),
    ]
    checks = compare_chain(chain, samples, config.embodiment.actions, load_recipe("fp32").gates)
    assert {c.metric for c in checks if c.verdict == "fail"} == {"action error / range"}
