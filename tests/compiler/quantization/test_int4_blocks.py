"""The graph forms that GPUs get of each recipe: standard ONNX, as it was simulated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache as memory
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from libra_edge.catalog import LayerPrecision, load_recipe, load_target
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.engines.read_back import integer_layers, require_integers, running
from libra_edge.compiler.graphs.export import export, from_bytes, opset_of, to_bytes
from libra_edge.compiler.graphs.make_graphs import Front, make_graphs
from libra_edge.compiler.graphs.staged_engines import as_written, fused_engines, split_engines
from libra_edge.compiler.quantization import int4_blocks
from libra_edge.compiler.quantization.assign import left_out, quantizable_layers
from libra_edge.compiler.quantization.int4_blocks import BlockWeight, fills_blocks
from libra_edge.compiler.quantization.quantize import Quantized, in_half, quantize
from libra_edge.engines._tensorrt import TensorRtFamily
from libra_edge.engines.base import QdqForm
from libra_edge.engines.onnxruntime import ENGINE
from libra_edge.engines.session import EnginePair
from libra_edge.errors import ParityError
from libra_edge.evaluation.half import products_of
from libra_edge.evaluation.torch_controller import TorchEngines
from libra_edge.parity.gates import run_engines
from libra_edge.parity.metrics import action_error
from libra_edge.parity.samples import Sample, choose_samples
from libra_edge.policy.checkpoint import Checkpoint, load_checkpoint
from libra_edge.policy.family import Graph
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.verification.claims.graphs import read_graph
from tests.compiler.quantization.test_quantize import made_up
from tests.compiler.wide import write_wide_checkpoint
from tests.tiny import write_tiny_checkpoint

T = onnx.TensorProto
GPU = TensorRtFamily.qdq
RECIPES = ("fp16", "fp8", "int4-awq", "w4a8", "int8-smoothquant", "int8-weight-only")
HALF_PARAMETER = torch.nn.Linear(1, 1).half()
Made = Callable[[str, QdqForm], tuple[Quantized, Front]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Wide enough for two blocks of inputs."""
    torch.set_num_threads(1)
    return load_checkpoint(write_wide_checkpoint(tmp_path_factory.mktemp("forms") / "wide"))


@pytest.fixture(scope="module")
def made(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Made:
    stages = StageCache(tmp_path_factory.mktemp("forms-cache"))

    @memory
    def make(name: str, form: QdqForm) -> tuple[Quantized, Front]:
        recipe = load_recipe(name)
        quantized = (
            in_half(checkpoint)
            if name == "fp16"
            else quantize(checkpoint, recipe, made_up(checkpoint, 4), form, stages)
        )
        return quantized, make_graphs(checkpoint, stages, lambda *_: None, quantized)

    return make


@pytest.fixture(scope="module")
def samples(checkpoint: Checkpoint) -> list[Sample]:
    config = checkpoint.config
    return choose_samples(config.embodiment, config, checkpoint.tokenizer, 8, 0, None)


def graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield model.graph
    for node in model.graph.node:
        yield from (a.g for a in node.attribute if a.HasField("g"))


def weights(model: onnx.ModelProto) -> Counter[int]:
    """Elements of the matrices by data type."""
    found: Counter[int] = Counter()
    for graph in graphs(model):
        for tensor in graph.initializer:
            if len(tensor.dims) == 2 and min(tensor.dims) >= 64:
                found[tensor.data_type] += int(np.prod(tensor.dims))
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_graphs_compute_what_was_simulated(
    name: str, made: Made, checkpoint: Checkpoint, samples: list[Sample]
) -> None:
    quantized, front = made(name, GPU)
    dims = checkpoint.config.embodiment.actions
    policy = run_engines(TorchEngines(checkpoint.policy), samples)
    expected = run_engines(TorchEngines(quantized.policy), samples, policy.intent)
    own = action_error(policy.actions, expected.actions, dims)
    assert 0 < own.p99 < 0.2, "something rounds"
    assert set(front.refiners) == {"loop"} | (set() if "4" in name else {"unrolled"})
    rounds = any(p.rounds_inputs for p in quantized.precisions.values())
    fused = [fused_engines(front.planner, refiner) for refiner in front.refiners.values()]
    for engines in (split_engines(front.parts), *fused):
        found = run_engines(engines, samples, policy.intent)
        # 16-bit floats differ in their last digit, and a number between two 8-bit ones may then
        # fall either way: that differs as much as rounding itself does. One layer is held closely.
        assert (found.intent == expected.intent).mean() >= (0.94 if rounds else 0.98)
        error = action_error(expected.actions, found.actions, dims)
        assert error.p50 < (2 * own.p50 if rounds else 1e-3)
        assert error.p99 < (2 * own.p99 if rounds else 0.01)


def _kept(name: str, policy: LibraVLA) -> int:
    """Elements of the planner's matrices that a recipe keeps in high precision."""
    keep = load_recipe(name).keep
    kept = [
        policy.get_submodule(layer)
        for layer in quantizable_layers(policy)
        if layer.startswith("planner.") and any(fnmatchcase(layer, pattern) for pattern in keep)
    ]
    return sum(linear.weight.numel() for linear in kept if isinstance(linear, torch.nn.Linear))


class Between16Bits(torch.nn.Module):
    """A layer between 16-bit floats."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """X float32 → float32."""
        return self.layer(x.half()).float()


@pytest.mark.parametrize("name", RECIPES[1:])
def test_one_layer_between_16_bit_floats_is_what_was_simulated(
    name: str, made: Made, checkpoint: Checkpoint
) -> None:
    quantized, _ = made(name, GPU)
    layer = "refiner.blocks.0.mlp.2"
    module = Between16Bits(quantized.policy.get_submodule(layer)).eval()
    width = checkpoint.policy.get_submodule(layer).in_features
    x = torch.randn(5, width, generator=torch.Generator().manual_seed(0))
    (found,) = (
        as_written(to_bytes(export(Graph("layer", module, (x,), ("x",), ("y",)))))
        .run({"x": x.numpy()})
        .values()
    )
    with torch.inference_mode(), products_of(HALF_PARAMETER):
        expected = module(x).numpy()
    # Where ONNX Runtime widens two operators in a row, it leaves the rounding between them out.
    assert np.abs(found - expected).max() <= np.abs(expected).max() * 0.005
    plain = checkpoint.policy.get_submodule(layer)(x).detach().numpy()
    assert 0 < np.abs(plain - expected).max() < 0.2 * np.abs(plain).max()


@pytest.mark.parametrize("name", RECIPES)
def test_whatever_is_not_rounded_is_in_16_bits(name: str, made: Made) -> None:
    quantized, front = made(name, GPU)
    found: dict[str, LayerPrecision | None] = {}
    for content in (front.planner, *front.refiners.values()):
        assert content is not None
        facts = read_graph(content)
        assert facts.rest == {"fp16"}, "attention, softmax, normalisation, layers in floats"
        found |= {layer: facts.precision(layer) for layer in facts.layers}
    assert {layer: str(precision) for layer, precision in found.items()} == {
        layer: str(precision) for layer, precision in quantized.precisions.items() if layer in found
    }
    assert len(found) > 20
    assert "fp32" not in {
        number for p in found.values() if p for number in (p.weights, p.activations)
    }


@pytest.mark.parametrize(
    ("name", "stored", "opset"),
    [
        ("fp16", T.FLOAT16, 20),
        ("fp8", T.FLOAT8E4M3FN, 21),
        ("int4-awq", T.INT4, 21),
        ("w4a8", T.INT4, 21),
        ("int8-smoothquant", T.INT8, 20),
        ("int8-weight-only", T.INT8, 20),
    ],
)
def test_weights_are_stored_as_the_recipe_says(
    name: str, stored: int, opset: int, made: Made, checkpoint: Checkpoint
) -> None:
    _, front = made(name, GPU)
    for content in (front.planner, *front.refiners.values()):
        model = from_bytes(content)
        assert opset_of(model) == opset
        assert not any(node.domain for graph in graphs(model) for node in graph.node)
        counts = weights(model)
        kept = _kept(name, checkpoint.policy) if content is front.planner else 0
        assert counts[stored] > 40_000
        assert counts[stored] == counts.total() - kept, "no matrix is left in another type"


def test_8_bit_floats_load_with_all_optimisers(made: Made) -> None:
    """They move roundings past transpositions, which take 8-bit floats from opset 21 on."""
    _, front = made("fp8", GPU)
    for content in (front.planner, *front.refiners.values()):
        assert content is not None
        assert ENGINE.load(content, "CPUExecutionProvider", {}).outputs


def test_blocks_lie_along_the_inputs_alone(made: Made) -> None:
    """TensorRT-RTX takes no other."""
    _, front = made("int4-awq", GPU)
    model = from_bytes(front.refiners["loop"])
    shapes = {t.name: t.dims for graph in graphs(model) for t in graph.initializer}
    readers = [n for graph in graphs(model) for n in graph.node if n.op_type == "DequantizeLinear"]
    assert len(readers) > 10
    for node in readers:
        attributes = {a.name: a.i for a in node.attribute}
        (inputs, outputs), scale = shapes[node.input[0]], shapes[node.input[1]]
        assert attributes["axis"] == 0
        assert attributes[int4_blocks.BLOCK_SIZE] == 32
        assert list(scale) == [inputs // 32, outputs]


def test_a_product_of_8_bit_floats_has_both_factors_in_them(made: Made) -> None:
    """w4a8 rounds 4-bit weights to 8-bit floats: engines multiply only equal types."""
    _, front = made("w4a8", GPU)
    nodes = from_bytes(front.planner).graph.node
    made_by = {name: node for node in nodes for name in node.output}
    types = {t.name: t.data_type for t in from_bytes(front.planner).graph.initializer}
    products = [n for n in nodes if n.op_type == "Gemm" and n.input[1] in made_by]
    assert len(products) > 5
    for product in products:
        for factor in product.input[:2]:
            back = made_by[factor]
            assert back.op_type == "DequantizeLinear"
            assert made_by[back.input[0]].op_type == "QuantizeLinear"
            assert types[back.input[2]] == T.FLOAT8E4M3FN


def test_blocks_come_back_within_half_a_step() -> None:
    weight = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    amax = weight.reshape(2, 32, 8).abs().amax(dim=1).t().flatten()
    stored = BlockWeight(weight, amax, to_fp8=False)
    steps = (amax.reshape(8, 2).t() / 7).repeat_interleave(32, dim=0)
    assert ((stored() - weight).abs() <= steps / 2 + 1e-6).all()
    assert stored.stored.abs().max() == 7
    double = BlockWeight(weight, amax, to_fp8=True)
    assert 0 < (double() - stored()).abs().max() < 0.07 * weight.abs().max()
    before = double()
    double.times(0.25)
    torch.testing.assert_close(double(), before * 0.25)
    assert [fills_blocks(n, 32) for n in (16, 32, 48, 64)] == [False, False, False, True]


def test_what_has_no_form_stays_in_floats_and_says_why(
    checkpoint: Checkpoint, made: Made, tmp_path: Path
) -> None:
    quantized, _ = made("int4-awq", GPU)
    assert quantized.precisions["planner.backbone.images"].high
    assert "no convolutions" in quantized.reasons["planner.backbone.images"]
    narrow = load_checkpoint(write_tiny_checkpoint(tmp_path / "narrow"))
    reasons = left_out(narrow.policy, load_recipe("int4-awq"), GPU)
    assert "blocks of 32" in reasons["refiner.blocks.0.mlp.0"]
    assert "refiner.blocks.0.mlp.2" not in reasons


def test_4_bit_weights_are_multiplied_by_floats_on_a_cpu(
    checkpoint: Checkpoint, made: Made, samples: list[Sample]
) -> None:
    target = load_target("cpu-x86_64")
    settings = target.engines[0]
    quantized, front = made("int4-awq", ENGINE.qdq)
    pair = [ENGINE.build(m, settings, target) for m in (front.planner, front.refiners["loop"])]
    products = [product for built in pair for product in ENGINE.products(built)]
    wanted = integer_layers(quantized.precisions)
    assert len(wanted) > 15
    require_integers(wanted, products)
    assert set(running(products).values()) == {"fp32", "int4 weights, fp32 activations"}
    inside = [p for p in products if "refiner.blocks.0.mlp.2" in p.weight]
    assert [(p.runs, p.weight_bytes) for p in inside] == [(4, 256 * 64 // 2)]
    sessions = [ENGINE.load(b.content, b.provider, b.session_options) for b in pair]
    expected = run_engines(fused_engines(front.planner, front.refiners["loop"]), samples)
    found = run_engines(EnginePair(*sessions), samples, expected.intent)
    dims = checkpoint.config.embodiment.actions
    assert action_error(expected.actions, found.actions, dims).max < 1e-4
    plain = [replace(built, session_options=settings.session_options) for built in pair]
    rounded = [product for built in plain for product in ENGINE.products(built)]
    with pytest.raises(ParityError, match="int4 weights, int8 activations") as caught:
        require_integers(wanted, rounded)
    assert caught.value.code == "precision-fallback"


def test_half_precision_is_everywhere_but_at_the_edges(made: Made) -> None:
    quantized, front = made("fp16", GPU)
    assert set(quantized.precisions.values()) == {
        LayerPrecision(weights="fp16", activations="fp16")
    }
    for content in (front.planner, *front.refiners.values()):
        model = from_bytes(content)
        ends = {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}
        assert T.FLOAT16 not in ends
        large = [t for g in graphs(model) for t in g.initializer if np.prod(t.dims) > 300]
        assert {t.data_type for t in large if "action" not in t.name} == {T.FLOAT16}
