"""What the graphs show decides by which recipe a release is judged; the manifest only claims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from libra_edge.catalog import HIGH, LayerPrecision, list_recipes
from libra_edge.limits import Limits
from libra_edge.verification.claims.graphs import NotReadable, read_graph
from libra_edge.verification.claims.held import differences, differing
from libra_edge.verification.claims.recipe import kept, makes, strictest

GOLDEN = Path(__file__).parents[2] / "golden/0.1.0"
INT8 = LayerPrecision(weights="int8", activations="int8")


def graph(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray]) -> bytes:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


def test_a_product_of_floats_and_what_it_costs() -> None:
    node = helper.make_node("Gemm", ["x", "policy.planner.output.weight"], ["y"])
    facts = read_graph(graph([node], {"policy.planner.output.weight": np.ones((4, 3), np.float32)}))
    assert facts.layers == {"planner.output": {HIGH}}
    assert facts.operations == 2 * 2 * 4 * 3
    assert facts.weights["planner.output"].stored_bytes == 48
    assert facts.weights["planner.output"].runs == 1


def test_a_product_of_integers_is_seen_through_its_roundings() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["planner.output.weight.stored", "s", "w0"], ["w"]),
        helper.make_node("Gemm", ["d", "w"], ["y"]),
    ]
    weights = {
        "s": np.array(0.1, np.float32),
        "z": np.array(128, np.uint8),
        "w0": np.array(0, np.int8),
        "planner.output.weight.stored": np.ones((4, 3), np.int8),
    }
    facts = read_graph(graph(nodes, weights))
    assert facts.layers == {"planner.output": {INT8}}
    nodes[0].op_type, nodes[1].op_type = "Identity", "Identity"
    for node in nodes[:2]:
        del node.input[1:]
    weights.pop("z")
    facts = read_graph(graph(nodes, weights))
    assert facts.layers == {"planner.output": {LayerPrecision(weights="int8", activations="fp32")}}


@pytest.mark.parametrize("opset", [20, 21, 23])
def test_shapes_are_known_behind_every_normalization(opset: int) -> None:
    """ONNX infers none behind GroupNormalization from opset 21 on."""
    nodes = [
        helper.make_node("GroupNormalization", ["x", "s", "b"], ["n"], num_groups=2),
        helper.make_node("Conv", ["n", "policy.planner.stem.0.weight"], ["y"]),
    ]
    tensors = {"s": np.ones(4, np.float32), "b": np.zeros(4, np.float32)}
    weight = np.ones((3, 4, 1, 1), np.float32)
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 5, 5])],
        [
            *(numpy_helper.from_array(array, name) for name, array in tensors.items()),
            numpy_helper.from_array(weight, "policy.planner.stem.0.weight"),
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    facts = read_graph(model.SerializeToString())
    assert facts.operations == 2 * 75 * 4
    assert facts.elements == 100


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not a graph", "no ONNX"),
        (
            graph([helper.make_node("Gemm", ["x", "x"], ["y"], domain="com.other")], {}),
            "of com.other",
        ),
    ],
)
def test_what_no_compiler_of_ours_writes(content: bytes, words: str) -> None:
    with pytest.raises(NotReadable, match=words):
        read_graph(content)


@pytest.mark.parametrize(("recipe", "shown"), [("fp32", {"fp32"}), ("int8", {"fp32", "int8"})])
def test_kept_releases_show_their_recipe(recipe: str, shown: set[str]) -> None:
    found = {}
    for name in ("planner", "refiner"):
        facts = read_graph((GOLDEN / recipe / f"engines/{name}.onnx").read_bytes())
        assert not facts.unnamed
        found |= {layer: facts.precision(layer) for layer in facts.layers}
    assert {str(precision) for precision in found.values()} == shown
    names = {r.name for r in list_recipes().values() if makes(r, found)}
    assert names == ({"fp32"} if recipe == "fp32" else {"int8", "int8-smoothquant"})


def test_a_recipe_rounds_something_and_nothing_else() -> None:
    int8, fp32 = list_recipes()["int8"], list_recipes()["fp32"]
    some = {"planner.backbone.blocks.0.mlp.0": INT8, "planner.output": HIGH}
    assert makes(int8, some)
    assert not makes(fp32, some)
    assert not makes(int8, dict.fromkeys(some, HIGH))
    assert not makes(int8, {**some, "planner.output": INT8}), "outputs are never rounded"
    assert not makes(int8, {**some, "planner.output": None}), "one layer in two formats"
    assert not makes(fp32, {})
    both = {**some, "planner.backbone.blocks.0.mlp.2": HIGH}
    assert kept(int8, both) == ["planner.backbone.blocks.0.mlp.2"]


def test_the_strictest_limit_of_each_kind_counts() -> None:
    recipes = list_recipes()
    found = strictest([recipes["int8"], recipes["fp16"]])
    assert found is not None
    assert found.tokens == max(recipes[n].gates.tokens for n in ("int8", "fp16"))
    assert found.action == min(recipes[n].gates.action for n in ("int8", "fp16"))
    assert found.action_percentile == 100
    assert strictest([]) is None
    assert isinstance(found, Limits)


def test_every_differing_field_is_named_with_both_values() -> None:
    told = {"a": 1, "list": [{"name": "x", "upper": 2.0}, {"name": "y", "upper": 1.0}], "c": None}
    found = {"a": 1, "list": [{"name": "x", "upper": 2.5}, {"name": "y", "upper": 1.0}], "c": 3}
    lines = differences(told, found)
    assert lines == [("list[x].upper", 2.0, 2.5), ("c", None, 3)]
    words = differing(lines, "the checkpoint's")
    assert words == (
        "list[x].upper is 2.0 in the manifest, the checkpoint's 2.5; "
        "c is absent in the manifest, the checkpoint's 3"
    )
    assert differences([1, 2], [1]) == [("number of ", 2, 1)]
    assert differences(1, 1.0) == [("", 1, 1.0)], "another type is another value"
