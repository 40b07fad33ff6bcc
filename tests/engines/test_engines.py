"""The engine interface, and ONNX Runtime behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from libra_edge.catalog import list_targets, load_target
from libra_edge.compiler.engines.plan import plan_engines
from libra_edge.engines import engine, kinds
from libra_edge.engines.onnxruntime import ENGINE
from libra_edge.engines.session import Array, EnginePair, Session, TensorSpec
from libra_edge.errors import IncompatibleError, InputError

CPU = "CPUExecutionProvider"


def doubling() -> bytes:
    """y = x + x; `unused` is an input that nothing reads."""
    x, unused, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3))
        for name in ("x", "unused", "y")
    )
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", [x, unused], [y])
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    ).SerializeToString()
    return content


def feeds() -> dict[str, Array]:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    return {"x": x, "unused": np.zeros_like(x)}


def test_kinds_are_the_files_of_the_folder() -> None:
    folder = Path(__file__).parents[2] / "libra_edge/engines"
    files = {path.stem for path in folder.glob("[!_]*.py")} - {"base", "session"}
    assert set(kinds()) == files
    for kind in kinds():
        assert engine(kind).kind == kind


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        engine("onnxruntim")
    assert caught.value.remedy == "Did you mean 'onnxruntime'?"


def test_every_target_names_kinds_that_exist_and_options_they_have() -> None:
    for target in list_targets().values():
        for entry in target.engines:
            engine(entry.kind).require_known_options(entry, target)


@pytest.mark.parametrize("kind", kinds())
def test_an_option_that_nobody_reads_is_refused(kind: str) -> None:
    target = load_target("rtx4090")
    wrong = target.engines[0].model_copy(update={"kind": kind, "options": {"versoin": "true"}})
    with pytest.raises(InputError, match="no option 'versoin'"):
        plan_engines(target.model_copy(update={"engines": (wrong,)}))


def test_an_option_of_tensorrt_is_met_with_the_nearest() -> None:
    target = load_target("h200")
    wrong = target.engines[0].model_copy(update={"options": {"version_compatibel": "true"}})
    with pytest.raises(InputError) as caught:
        engine("tensorrt").require_known_options(wrong, target)
    assert caught.value.code == "engine-option-unknown"
    assert caught.value.remedy == "Did you mean 'version_compatible'?"
    right = wrong.model_copy(update={"options": {"version_compatible": "true"}})
    engine("tensorrt").require_known_options(right, target)


def test_building_keeps_the_graph_and_says_what_it_takes() -> None:
    target = load_target("cpu-x86_64")
    built = ENGINE.build(doubling(), target.engines[0], target)
    assert built.graph == built.content
    assert built.content == doubling()
    assert built.session_options == target.engines[0].session_options
    assert built.session_options["session.intra_op.allow_spinning"] == "0"
    assert built.inputs == (
        TensorSpec("x", "float32", (2, 3)),
        TensorSpec("unused", "float32", (2, 3)),
    )
    session = ENGINE.load(built.content, built.provider, built.session_options)
    np.testing.assert_array_equal(session.run(feeds())["y"], 2 * feeds()["x"])


@pytest.mark.parametrize("optimize", [True, False])
def test_loading_takes_arrays_that_are_not_contiguous(optimize: bool) -> None:
    session = ENGINE.load(doubling(), CPU, {}, optimize=optimize)
    x = np.arange(6, dtype=np.float32).reshape(3, 2).T
    found = session.run({**feeds(), "x": x})["y"]
    np.testing.assert_array_equal(found, 2 * x)


@pytest.mark.parametrize(
    "change",
    [
        {"x": np.zeros((2, 3), dtype=np.float64)},
        {"x": np.zeros((3, 2), dtype=np.float32)},
        {"y": np.zeros((2, 3), dtype=np.float32)},
    ],
    ids=["dtype", "shape", "extra"],
)
def test_inputs_that_do_not_fit_are_refused(change: dict[str, Array]) -> None:
    session = ENGINE.load(doubling(), CPU, {})
    with pytest.raises(ValueError, match="declared"):
        session.run(feeds() | change)


def test_a_missing_input_is_refused() -> None:
    with pytest.raises(ValueError, match="unused"):
        ENGINE.load(doubling(), CPU, {}).run({"x": feeds()["x"]})


def test_a_kind_that_breaks_its_own_promise_is_caught() -> None:
    class Wrong(Session):
        def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
            return {"y": feeds["x"].astype(np.float64)}

    spec = TensorSpec("x", "float32", (2,)), TensorSpec("y", "float32", (2,))
    with pytest.raises(ValueError, match="output y"):
        Wrong(spec[:1], spec[1:]).run({"x": np.zeros(2, dtype=np.float32)})


def test_a_provider_this_machine_lacks() -> None:
    with pytest.raises(IncompatibleError, match="provider-unavailable"):
        ENGINE.load(doubling(), "NoSuchExecutionProvider", {})


def test_a_pair_feeds_each_graph_what_it_takes() -> None:
    class Echo(Session):
        def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
            return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.outputs}

    one = np.zeros(1, dtype=np.float32)

    def specs(*names: str) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, "float32", (1,)) for name in names)

    planner = Echo(specs("images", "instruction", "state"), specs("intent", "margin"))
    refiner = Echo(specs("images", "state", "intent", "noise"), specs("actions"))
    pair = EnginePair(planner, refiner)
    assert len(pair.plan(one, one, one)) == 2
    assert pair.refine(one, one, one, one).shape == (1,)


def products(nodes: list[onnx.NodeProto], weights: dict[str, onnx.TensorProto]) -> bytes:
    """x float32 [2, 64] to y float32."""
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, (2, 64)) for n in "xy")
    for name, tensor in weights.items():
        tensor.name = name
    graph = helper.make_graph(nodes, "g", [x], [y], list(weights.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def test_weights_of_16_bits_keep_their_names_on_a_cpu() -> None:
    square = np.eye(64)
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=onnx.TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "a.weight"], ["i"], name="a"),
        helper.make_node("QuantizeLinear", ["i", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["b.weight.stored", "s", "z"], ["w"]),
        helper.make_node("MatMul", ["d", "w"], ["k"], name="b"),
        helper.make_node("Cast", ["k"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    weights = {
        "a.weight": numpy_helper.from_array(square.astype(np.float16)),
        "b.weight.stored": numpy_helper.from_array(square.astype(np.int8)),
        "s": numpy_helper.from_array(np.float16(0.5)),
        "z": numpy_helper.from_array(np.int8(0)),
    }
    target = load_target("cpu-x86_64")
    built = ENGINE.build(products(nodes, weights), target.engines[0], target)
    assert {p.weight for p in ENGINE.products(built)} == {"a.weight", "b.weight.stored"}
