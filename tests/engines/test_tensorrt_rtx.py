"""TensorRT-RTX engines for a GPU that is not here: what is stored, refused, and repeats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from libra_edge.binding.policy import Policy
from libra_edge.bundle.compatibility import needs_of
from libra_edge.bundle.engine_files.rtx import read_header
from libra_edge.bundle.verify import verify_integrity
from libra_edge.catalog import load_target
from libra_edge.compiler.graphs.export import from_bytes
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.engines import _epcontext, tensorrt_rtx
from libra_edge.engines._log_layers import engine_layers, products_of, stored_bytes
from libra_edge.engines.base import BuiltEngine
from libra_edge.engines.session import TensorSpec
from libra_edge.errors import IncompatibleError, InputError
from libra_edge.verification.request import Request as VerifyRequest
from libra_edge.verification.verify import verify_release
from tests.tiny import write_tiny_checkpoint

pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")
RTX4090 = load_target("rtx4090")
SIZE = 1536  # large beside the 6 MB that every engine has


def chain(fp8: bool, layers: int = 6) -> bytes:
    """y = x W W …, the weights in E4M3 behind Q/DQ, or in fp32."""
    random = np.random.default_rng(0)
    nodes, weights = [], []
    if fp8:
        weights.append(numpy_helper.from_array(np.float32(0.01), "scale"))
        weights.append(helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, (), b"\0", raw=True))
    name = "x"
    for i in range(layers):
        if fp8:
            bits = random.integers(0, 120, (SIZE, SIZE), dtype=np.uint8)
            shape = (SIZE, SIZE)
            stored = helper.make_tensor(
                f"w{i}", TensorProto.FLOAT8E4M3FN, shape, bits.tobytes(), raw=True
            )
            nodes.append(helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"q{i}"]))
            nodes.append(
                helper.make_node("DequantizeLinear", [f"q{i}", "scale", "zero"], [f"a{i}"])
            )
            nodes.append(
                helper.make_node("DequantizeLinear", [f"w{i}", "scale", "zero"], [f"d{i}"])
            )
            inputs = [f"a{i}", f"d{i}"]
        else:
            stored = numpy_helper.from_array(
                random.standard_normal((SIZE, SIZE), dtype=np.float32), f"w{i}"
            )
            inputs = [name, f"w{i}"]
        weights.append(stored)
        name = "y" if i == layers - 1 else f"h{i}"
        nodes.append(helper.make_node("MatMul", inputs, [name], name=f"product{i}"))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (16, SIZE)) for n in "xy")
    graph = helper.make_graph(nodes, "chain", [x], [y], weights)
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    ).SerializeToString()
    return content


def build(model: bytes) -> BuiltEngine:
    return tensorrt_rtx.ENGINE.build(model, RTX4090.engines[0], RTX4090)


@pytest.fixture(scope="module")
def engines() -> dict[str, BuiltEngine]:
    return {"fp32": build(chain(fp8=False)), "fp8": build(chain(fp8=True))}


def test_fp8_weights_are_really_stored(engines: dict[str, BuiltEngine]) -> None:
    sizes = {name: len(tensorrt_rtx.engine_bytes(built)) for name, built in engines.items()}
    assert sizes["fp8"] <= 0.4 * sizes["fp32"], sizes
    made = engines["fp8"].compilation
    assert made is not None
    stored = stored_bytes(made.log)
    assert stored["fp8"] >= 6 * SIZE * SIZE
    assert stored.get("fp32", 0) < 0.01 * stored["fp8"], "no layer fell back to floats"
    assert made.weight_bytes < 1.1 * 6 * SIZE * SIZE


def test_every_product_says_what_it_runs_in(engines: dict[str, BuiltEngine]) -> None:
    for name, built in engines.items():
        products = tensorrt_rtx.ENGINE.products(built)
        assert {p.weight for p in products} == {f"w{i}" for i in range(6)}
        assert {p.precision for p in products} == {name}
        width = {"fp32": 4, "fp8": 1}[name]
        assert {p.weight_bytes for p in products} == {width * SIZE * SIZE}


def test_the_wrapper_is_an_onnx_file_around_the_engine(engines: dict[str, BuiltEngine]) -> None:
    built = engines["fp8"]
    model = from_bytes(built.content)
    (node,) = model.graph.node
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert (node.op_type, node.domain) == ("EPContext", "com.microsoft")
    assert attributes["embed_mode"] == attributes["main_context"] == 1
    assert attributes["hardware_architecture"] == b"89"
    assert built.compilation is not None
    assert attributes["ep_sdk_version"].decode() == built.compilation.version
    assert len(tensorrt_rtx.engine_bytes(built)) == built.compilation.engine_bytes
    assert built.inputs == (TensorSpec("x", "float32", (16, SIZE)),)
    assert [v.name for v in model.graph.input] == ["x"]
    assert built.graph == chain(fp8=True), "the plain graph stays"
    head = tensorrt_rtx.engine_bytes(built)[:64]
    (told,) = model.metadata_props
    assert told.key == "ep_compatibility_info.NvTensorRTRTXExecutionProvider"
    assert told.value == head.hex()


@pytest.mark.parametrize("capability", ["8.0", "8.6", "8.9", "12.0", "12.1"])
def test_an_engine_says_its_size_version_and_gpu_by_itself(capability: str) -> None:
    target = RTX4090.model_copy(update={"compute_capability": capability})
    built = tensorrt_rtx.ENGINE.build(chain(fp8=False, layers=1), target.engines[0], target)
    engine = tensorrt_rtx.engine_bytes(built)
    header = read_header(engine[:64])
    assert header is not None
    assert built.compilation is not None
    assert header.size_bytes == len(engine) == built.compilation.engine_bytes
    assert header.version == built.compilation.version
    assert header.capabilities == (capability,)


def test_an_engine_built_again_has_the_same_bytes(engines: dict[str, BuiltEngine]) -> None:
    assert build(chain(fp8=True)).content == engines["fp8"].content


def test_no_path_of_this_machine_is_in_an_engine_or_its_log(
    engines: dict[str, BuiltEngine],
) -> None:
    for built in engines.values():
        assert built.compilation is not None
        assert b"/tmp/" not in built.content
        assert "/tmp/" not in built.compilation.log


def test_a_graph_that_the_compiler_does_not_take_is_refused_by_its_words() -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (1,)) for n in "xy")
    graph = helper.make_graph([node], "odd", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    with pytest.raises(IncompatibleError, match="engine-not-built") as caught:
        build(model.SerializeToString())
    assert "NoSuchOperator" in caught.value.fact
    assert "odd" in caught.value.fact


@pytest.mark.parametrize("capability", ["9.0", "8.7"])
def test_a_gpu_that_the_compiler_has_no_kernels_for(capability: str) -> None:
    other = RTX4090.model_copy(update={"compute_capability": capability})
    with pytest.raises(IncompatibleError, match="engine-not-built") as caught:
        tensorrt_rtx.ENGINE.build(chain(fp8=False, layers=1), other.engines[0], other)
    assert "SM89" in caught.value.fact


def test_without_the_package_one_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tensorrt_rtx, "find_spec", lambda name: None)
    for call in (tensorrt_rtx.ENGINE.tools, lambda: build(chain(fp8=False, layers=1))):
        with pytest.raises(InputError, match=r"libra-edge\[rtx\]"):
            call()


def test_weights_in_a_file_of_their_own_give_the_same_engine_in_one(tmp_path: Path) -> None:
    whole, data, engine = chain(fp8=False, layers=2), tmp_path / "chain.data", tmp_path / "e"
    onnx.save_model(
        from_bytes(whole),
        tmp_path / "chain.onnx",
        save_as_external_data=True,
        location=data.name,
    )
    graph = (tmp_path / "chain.onnx").read_bytes()
    assert len(graph) < 2000
    built = tensorrt_rtx.ENGINE.build_from_files(graph, data, engine, RTX4090.engines[0], RTX4090)
    assert (built.data, built.engine) == (data, engine)
    assert engine.read_bytes() == tensorrt_rtx.engine_bytes(build(whole))
    assert built.compilation is not None
    assert built.compilation.engine_bytes == engine.stat().st_size
    assert {product.weight for product in tensorrt_rtx.ENGINE.products(built)} == {"w0", "w1"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chain.data", "chain.onnx", "e"]
    with pytest.raises(ValueError, match="a file of its own"):
        tensorrt_rtx.engine_bytes(built)


def test_an_engine_that_no_onnx_file_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_epcontext, "LARGEST_ENGINE_BYTES", 10)
    spec = (TensorSpec("x", "float32", (1,)),)
    with pytest.raises(IncompatibleError, match="engine-too-large"):
        _epcontext.wrap(
            bytes(11), spec, spec, name="p", provider="P", hardware="89", sdk_version="1"
        )


def test_products_are_found_in_loops_and_behind_conversions() -> None:
    inner = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("DequantizeLinear", ["w", "s"], ["d"]),
            helper.make_node("Gemm", ["x", "d"], ["z"], name="inner"),
        ],
        "body",
        [],
        [],
    )
    loop = helper.make_node("Loop", ["count", "true", "x"], ["y"], body=inner)
    weights = [
        numpy_helper.from_array(np.int64(7), "count"),
        numpy_helper.from_array(np.zeros((2, 2), np.int8), "w"),
    ]
    graph = helper.make_graph([loop], "g", [], [], weights)
    assert products_of(graph) == {"inner": ("w", 7)}


LINE = (
    "Name: gemm_1, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [5,8], Strides: [8,1], "
    "StrideOrder: [1,0], Datatype: FP8, Format: (Linear) Row major linear format }], Constants: "
    "[ { Name: c, Dimensions: [8,3], Strides: [3,1], StrideOrder: [1,0], Datatype: Int4, Format: "
    "(Linear) }], Outputs: [ { Name: y, Dimensions: [5,3], Strides: [3,1], StrideOrder: [1,0], "
    "Datatype: Float, Format: (Linear) }], TacticName: t, StreamId: 0, "
    "Metadata: [ONNX Layer: a][ONNX Layer: b]"
)


def test_a_line_of_the_log_is_read() -> None:
    (layer,) = engine_layers(f"INFO before\n{LINE}\nVERBOSE after\n")
    assert (layer.type, layer.nodes, layer.input_format) == ("gemm", ("a", "b"), "fp8")
    assert [(c.name, c.format, c.size_bytes) for c in layer.constants] == [("c", "int4", 12)]
    assert stored_bytes(f"{LINE}\n{LINE}") == {"int4": 12}, "one constant, read twice"


def test_a_release_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    request = Request(
        checkpoint,
        target="rtx4090",
        recipe="fp32",
        out=tmp_path / "out",
        cache=tmp_path / "cache",
        samples=4,
    )
    done = compile_checkpoint(request)
    manifest = verify_integrity(tmp_path / "out")
    for engine in (manifest.engines.planner, manifest.engines.refiner):
        assert engine.kind == "tensorrt_rtx"
        assert engine.compiled is not None
        assert engine.compiled.compute_capability == "8.9"
        assert engine.compiled.version == manifest.tools["tensorrt-rtx"]
        wrapped = onnx.load(tmp_path / "out" / engine.member)
        assert wrapped.graph.node[0].op_type == "EPContext"
    verdicts = {c.stage: c.verdict for c in manifest.parity.checks}
    assert verdicts["engine vs fused"] == verdicts["C ABI"] == "not measured"
    assert verdicts["fused vs exported"] == "pass"
    assert manifest.parity.verdict == "not measured", "a gap is never a pass"
    assert needs_of(manifest).compute_capability == "8.9"
    assert 0 < needs_of(manifest).memory_bytes < 2**30
    report = json.loads(done.report.read_text())
    assert "Engine generation completed" in report["compilations"]["planner"]["log"]
    result = verify_release(VerifyRequest(tmp_path / "out", golden_only=True))
    by_stage = {check.stage: check.verdict for check in result.checks}
    assert by_stage["C ABI vs golden vectors"] == "not measured"
    assert by_stage["graphs, simulated vs golden vectors"] == "pass"
    assert by_stage["headers of the engines"] == "pass"
    assert not [note for note in result.unchecked if "header" in note or "ep_comp" in note]
    with pytest.raises(IncompatibleError, match="provider-unavailable") as caught:
        Policy(tmp_path / "out")
    assert "NvTensorRTRTXExecutionProvider" in caught.value.fact, "refused before it is loaded"
    again = Request(**{**vars(request), "out": tmp_path / "again", "cache": tmp_path / "other"})
    assert compile_checkpoint(again).manifest == done.manifest
