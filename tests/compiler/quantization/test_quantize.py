"""Quantised policies: what is simulated, what is exported, what runs, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from libra_edge.catalog import HIGH, LayerPrecision, load_recipe, load_target
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.engines.build import build_engines
from libra_edge.compiler.engines.read_back import integer_layers, require_integers, running
from libra_edge.compiler.graphs.export import from_bytes
from libra_edge.compiler.graphs.make_graphs import Front, make_graphs
from libra_edge.compiler.graphs.staged_engines import fused_engines, split_engines
from libra_edge.compiler.quantization.assign import (
    choose_precisions,
    quantizable_layers,
    require_calibration_runs_here,
)
from libra_edge.compiler.quantization.calibrate import calibrate, run
from libra_edge.compiler.quantization.calibration_data import CalibrationData
from libra_edge.compiler.quantization.convert import convert
from libra_edge.compiler.quantization.image_stem import QuantizedImageTokens
from libra_edge.compiler.quantization.linear import (
    ActivationQuantizer,
    QuantizedLinear,
    Ranges,
    StoredWeight,
)
from libra_edge.compiler.quantization.quantize import Quantized, quantize
from libra_edge.compiler.quantization.ranges import Seen, of_convolution, search_inputs, watch
from libra_edge.compiler.quantization.unbatched_blocks import gained
from libra_edge.engines.base import QdqForm
from libra_edge.engines.onnxruntime import ENGINE
from libra_edge.engines.session import EnginePair
from libra_edge.errors import ExitCode, IncompatibleError, ParityError
from libra_edge.evaluation.torch_controller import TorchEngines
from libra_edge.parity.gates import compare, run_engines
from libra_edge.parity.metrics import action_error
from libra_edge.parity.samples import choose_samples
from libra_edge.policy.checkpoint import Checkpoint, load_checkpoint
from libra_edge.policy.libra_vla.layers import ImageTokens
from tests.compiler.variants import job_for
from tests.tiny import write_tiny_checkpoint

INT8 = LayerPrecision(weights="int8", activations="int8")
CPU = ENGINE.qdq
TARGET = load_target("cpu-x86_64")


def made_up(checkpoint: Checkpoint, count: int = 8, seed: int = 0) -> CalibrationData:
    config, random = checkpoint.config, np.random.default_rng(seed)
    robot, parts = config.embodiment, config.chunks_per_plan
    shape = (count, parts, config.num_cameras, robot.image_height, robot.image_width, 3)
    return CalibrationData(
        images=random.integers(0, 256, shape, dtype=np.uint8),
        states=random.standard_normal((count, parts, config.state_dim)).astype(np.float32),
        instructions=random.integers(0, config.vocabulary, (count, config.instruction_length)),
        tokens=random.integers(
            0, config.bins, (count, config.plan_steps, config.action_dim), dtype=np.int32
        ),
        noise=random.standard_normal((count, parts, 2, config.chunk, config.action_dim)).astype(
            np.float32
        ),
        frames=tuple((0, i) for i in range(count)),
        source="0" * 64,
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    torch.set_num_threads(1)
    return load_checkpoint(write_tiny_checkpoint(tmp_path_factory.mktemp("quantise") / "tiny"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> StageCache:
    return StageCache(tmp_path_factory.mktemp("quantise-cache"))


@pytest.fixture(scope="module")
def quantized(checkpoint: Checkpoint, cache: StageCache) -> Quantized:
    return quantize(checkpoint, load_recipe("int8"), made_up(checkpoint), CPU, cache)


@pytest.fixture(scope="module")
def front(checkpoint: Checkpoint, cache: StageCache, quantized: Quantized) -> Front:
    return make_graphs(checkpoint, cache, lambda *_: None, quantized)


def test_every_linear_layer_has_a_part_but_those_evaluated_while_compiling(
    checkpoint: Checkpoint,
) -> None:
    found = quantizable_layers(checkpoint.policy)
    linear = {n for n, m in checkpoint.policy.named_modules() if isinstance(m, torch.nn.Linear)}
    constant = {"planner.blocks.0.attention.query", "refiner.time.0", "refiner.modulate"}
    assert linear - found.keys() == constant
    assert found["planner.output"] == "outputs"
    assert found["planner.backbone.state"] == "embeddings"
    assert found["planner.blocks.0.mlp.0"] == "planner.head"
    assert found["refiner.images"] == "refiner.encoder"


def test_a_recipe_keeps_what_it_says(checkpoint: Checkpoint) -> None:
    recipe = load_recipe("int8").model_copy(update={"keep": ("*.mlp.2", "planner.backbone.images")})
    chosen = choose_precisions(checkpoint.policy, recipe, CPU)
    assert chosen["planner.blocks.0.mlp.2"] == chosen["planner.backbone.images"] == HIGH
    assert chosen["planner.blocks.0.mlp.0"] == chosen["refiner.images"] == INT8
    assert chosen["planner.output"] == HIGH
    other = choose_precisions(checkpoint.policy, load_recipe("int8"), QdqForm())
    assert other["refiner.images"] == HIGH, "only some engines have integer stems"


def test_rounding_is_to_the_nearest_step_within_the_range() -> None:
    x = torch.linspace(-3, 3, 1001)
    for form in (CPU, QdqForm()):
        y = ActivationQuantizer(2.0, "int8", form)(x)
        inside = x.abs() <= 2.0
        assert (x - y)[inside].abs().max() <= 2.0 / 127 / 2 + 1e-6
        assert y.max() <= 2.0 + 1e-6
        assert y.min() >= -2.0 - 2.0 / 127
    one_sided = ActivationQuantizer(2.0, "int8", CPU, floor=-0.17)
    error = (one_sided(x) - x)[(x >= -0.17) & (x <= 2.0)].abs().max()
    assert error <= (2.17 / 255) * 1.01, "half the step of a range on both sides"
    assert ActivationQuantizer(2.0, "fp8", CPU)(torch.tensor(1.0)) == pytest.approx(1.0, rel=0.07)


@pytest.mark.parametrize(("precision", "relative"), [("int8", 0.01), ("fp8", 0.07)])
def test_weights_come_back_within_half_a_step(precision: str, relative: float) -> None:
    weight = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    stored = StoredWeight(weight, weight.abs().amax(dim=0), precision, axis=1)
    assert stored.stored.element_size() == 1
    error = (stored() - weight).abs().amax(dim=0) / weight.abs().amax(dim=0)
    assert 0 < error.max() < relative


def test_merged_layers_compute_the_same() -> None:
    torch.manual_seed(0)
    first, second = torch.nn.Linear(8, 4), torch.nn.Linear(8, 6)
    x = torch.randn(5, 8)

    def quantized(linear: torch.nn.Linear, amax: float = 3.0) -> QuantizedLinear:
        found = Ranges(linear.weight.detach(), linear.weight.detach().abs().amax(dim=1), amax)
        return QuantizedLinear(linear, found, INT8, CPU)

    one, two = quantized(first), quantized(second)
    merged = one.beside(two)
    assert merged is not None
    torch.testing.assert_close(merged(x), torch.cat([one(x), two(x)], dim=1))
    assert one.beside(quantized(second, amax=2.0)) is None, "they round the input differently"


@pytest.mark.parametrize(("height", "width"), [(16, 24), (15, 22), (17, 21), (16, 23)])
def test_an_image_stem_in_integers_sees_the_same(height: int, width: int) -> None:
    """On borders as well, whether or not two columns can be computed at once."""
    torch.manual_seed(0)
    tokens = ImageTokens((4, 8), 16, 2, height, width).eval()
    with torch.no_grad():
        for parameter in tokens.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.randint(0, 256, (3, 2, height, width, 3), dtype=torch.uint8)
    names = [f"stem.{i}" for i, m in enumerate(tokens.stem) if isinstance(m, torch.nn.Conv2d)]
    seen = watch(tokens, names, lambda stem: stem(images))
    ranges = []
    for name in names:
        weight = tokens.get_submodule(name).weight.detach()
        found = Ranges(weight, weight.abs().amax(dim=(1, 2, 3)), 0.0)
        ranges.append(of_convolution(found, seen[name]))
    with torch.no_grad():
        expected = tokens(images)
        for form in (CPU, replace(CPU, flat=False)):
            found = QuantizedImageTokens(tokens, ranges, form, width)(images)
            assert found.shape == expected.shape
            error = (found - expected).abs() / expected.abs().mean()
            assert 0 < error.mean() < 0.03
            assert error.max() < 0.3


def test_ranges_are_those_that_cost_least() -> None:
    """One large value that the weights ignore is clipped; one that they follow is kept."""
    torch.manual_seed(0)
    x = torch.randn(512, 8)
    x[0] = torch.tensor([200.0] + [0.0] * 7)
    for weight_of_it, clipped in ((0.0, True), (50.0, False)):
        weight = torch.randn(4, 8)
        weight[:, 0] = weight_of_it
        seen = Seen([x], [], float(x.min()), float(x.max()))
        found = Ranges(weight, weight.abs().amax(dim=1), 0.0)
        result = search_inputs({"layer": found, "twin": found}, {"layer": seen, "twin": seen})
        assert (result["layer"].input_amax < 100) == clipped
        assert result["layer"].input_amax == result["twin"].input_amax


def test_a_gain_changes_scales_alone() -> None:
    torch.manual_seed(0)
    linear, x, gain = torch.nn.Linear(8, 4), torch.randn(5, 8), torch.rand(4) + 0.5
    weight = linear.weight.detach()
    layer = QuantizedLinear(linear, Ranges(weight, weight.abs().amax(dim=1), 3.0), INT8, CPU)
    torch.testing.assert_close(layer(x, gain), layer(x) * gain)
    torch.testing.assert_close(gained(linear, x, gain), linear(x) * gain)


def test_calibration_sees_the_whole_loop(checkpoint: Checkpoint, cache: StageCache) -> None:
    """Ranges from first steps alone are too narrow or too wide for the last."""
    calls: list[int] = []
    policy = checkpoint.policy
    assert policy.refiner is not None
    hook = policy.refiner.noisy.register_forward_hook(lambda *_: calls.append(1))
    run(policy, made_up(checkpoint, 4))
    hook.remove()
    steps, parts = checkpoint.config.schedule.denoise_steps, checkpoint.config.chunks_per_plan
    assert len(calls) == steps * parts * 2, "every step, every slice, true and predicted intents"


def test_the_cache_is_keyed_by_everything(checkpoint: Checkpoint, cache: StageCache) -> None:
    recipe, data = load_recipe("int8"), made_up(checkpoint)
    wanted = choose_precisions(checkpoint.policy, recipe, CPU)
    before = {p.name for p in cache.root.iterdir()}
    calibrate(checkpoint, recipe, wanted, data, cache)
    first = {p.name for p in cache.root.iterdir()}
    calibrate(checkpoint, recipe, wanted, data, cache)
    assert {p.name for p in cache.root.iterdir()} == first
    other = replace(data, noise=data.noise + 1e-3)
    calibrate(checkpoint, recipe, wanted, other, cache)
    tighter = recipe.model_copy(update={"algorithm": "percentile", "percentile": 99.0})
    calibrate(checkpoint, tighter, wanted, data, cache)
    assert len({p.name for p in cache.root.iterdir()} - first) == 2
    assert before <= first


def test_graphs_compute_what_was_simulated(
    checkpoint: Checkpoint, quantized: Quantized, front: Front
) -> None:
    config = checkpoint.config
    samples = choose_samples(config.embodiment, config, checkpoint.tokenizer, 8, 0, None)
    expected = run_engines(TorchEngines(quantized.policy), samples)
    for engines in (
        split_engines(front.parts),
        fused_engines(front.planner, front.refiners["loop"]),
        fused_engines(front.planner, front.refiners["unrolled"]),
    ):
        found = run_engines(engines, samples, expected.intent)
        assert (found.intent == expected.intent).mean() >= 0.98
        error = action_error(expected.actions, found.actions, config.embodiment.actions)
        assert error.p99 < 0.01


def test_every_asked_for_product_runs_in_integers(front: Front) -> None:
    wanted = integer_layers(front.precisions)
    assert len(wanted) > 15
    for form in front.refiners:
        built = [
            ENGINE.build(m, TARGET.engines[0], TARGET)
            for m in (front.planner, front.refiners[form])
        ]
        products = [product for one in built for product in ENGINE.products(one)]
        require_integers(wanted, products)
        runs = running(products)
        assert runs["refiner.blocks.0.mlp.0"] == runs["planner.backbone.images"] == "int8"
        loops = [p.runs for p in products if "refiner.blocks.0.mlp.0" in p.weight]
        assert sum(loops) == 4, "once per denoising step"


def test_a_form_the_engine_does_not_know_fails_with_the_layers_named(
    checkpoint: Checkpoint, cache: StageCache, quantized: Quantized
) -> None:
    """A float bias: right numbers, but no integer kernel takes them."""
    form = replace(CPU, integer_bias=False)
    policy = convert(checkpoint.policy, quantized.ranges, quantized.precisions, form)
    front = make_graphs(checkpoint, cache, lambda *_: None, replace(quantized, policy=policy))
    reference = TorchEngines(policy)
    config = checkpoint.config
    samples = choose_samples(config.embodiment, config, checkpoint.tokenizer, 2, 0, None)
    target, recipe = load_target("cpu-x86_64"), load_recipe("int8")
    job = job_for(checkpoint, target, recipe, cache, samples=samples)
    with pytest.raises(ParityError, match=r"planner\.blocks\.0\.mlp\.0") as caught:
        build_engines(job, front, reference)
    assert caught.value.code == "precision-fallback"
    assert caught.value.exit_code is ExitCode.PARITY


def test_integers_stay_integers_in_the_loop(front: Front) -> None:
    model = from_bytes(front.refiners["loop"])
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    body = loop.attribute[0].g
    stored = {t.name: t for t in body.initializer if t.name.endswith("mlp.0.weight.stored")}
    assert len(stored) == 2
    assert all(t.data_type == onnx.TensorProto.INT8 for t in stored.values())
    inside = {name for node in body.node for name in node.input}
    outside = {name for node in model.graph.node for name in node.input}
    for name in ("cross_attention.key.weight.stored", "cross_attention.value.weight.stored"):
        assert not any(name in given for given in inside), "hoisted"
        assert any(name in given for given in outside)


def test_gates_of_rounded_recipes_can_fail(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    samples = choose_samples(config.embodiment, config, checkpoint.tokenizer, 16, 0, None)
    good = run_engines(TorchEngines(checkpoint.policy), samples)
    dims = config.embodiment.actions

    def failing(candidate: object) -> set[str]:
        checks = compare("stage", good, candidate, dims, load_recipe("int8").gates)  # type: ignore[arg-type]
        return {check.metric for check in checks if check.verdict != "pass"}

    assert failing(good) == set()
    order = np.argsort(good.margin, axis=None)
    for position, expected in ((0, set()), (-1, {"margin of differing tokens"})):
        intent = good.intent.copy()
        intent.flat[order[position]] = (intent.flat[order[position]] + 1) % config.bins
        assert failing(replace(good, intent=intent)) == expected
    span = np.array([dim.upper - dim.lower for dim in dims], np.float32)
    assert failing(replace(good, actions=good.actions + 0.015 * span)) == set()
    assert failing(replace(good, actions=good.actions + 0.025 * span)) == {
        "p99 action error / range"
    }


def test_what_cannot_be_carried_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpu, code in ((False, "recipe-needs-gpu"), (True, "recipe-not-compiled")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=gpu: there)
        with pytest.raises(IncompatibleError) as caught:
            require_calibration_runs_here(load_recipe("nvfp4"))
        assert caught.value.code == code


def test_engine_files_are_small(
    checkpoint: Checkpoint, cache: StageCache, front: Front, tmp_path: Path
) -> None:
    plain = make_graphs(checkpoint, cache, lambda *_: None)
    weights = [
        sum(len(t.raw_data) for t in from_bytes(f.planner).graph.initializer if len(t.dims) == 2)
        for f in (front, plain)
    ]
    assert weights[0] < 0.6 * weights[1]


def test_sessions_load_both_ways(front: Front) -> None:
    planner = ENGINE.load(front.planner, "CPUExecutionProvider", {})
    refiner = ENGINE.load(front.refiners["loop"], "CPUExecutionProvider", {}, threads=2)
    assert isinstance(EnginePair(planner, refiner), EnginePair)
