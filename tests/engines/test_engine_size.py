"""What an engine for an RTX 4090 is made of, and that 8-bit weights make it smaller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import Tensor

from libra_edge.catalog import load_recipe, load_target
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.graphs.make_graphs import make_graphs
from libra_edge.compiler.quantization.quantize import quantize
from libra_edge.engines import tensorrt_rtx
from libra_edge.engines._log_layers import stored_bytes
from libra_edge.engines.base import BuiltEngine, Compilation
from libra_edge.policy.checkpoint import Checkpoint, load_checkpoint
from tests.compiler.quantization.test_quantize import made_up

pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")
pytestmark = pytest.mark.long
DEMO = Path(__file__).parents[2] / "examples/metaworld/checkpoint"
LARGEST_SHARE = 0.40
RTX4090 = load_target("rtx4090")


def wide_checkpoint(folder: Path) -> Checkpoint:
    """The demo policy's architecture, four times as wide, with random weights."""
    config = load_checkpoint(DEMO).config
    assert config.refiner is not None
    backbone = config.planner.backbone.model_copy(update={"width": 4 * 192})
    planner = config.planner.model_copy(update={"backbone": backbone})
    refiner = config.refiner.model_copy(update={"width": 4 * 192})
    wide = config.model_copy(update={"planner": planner, "refiner": refiner})
    for name in ("stats.json", "tokenizer.json"):
        (folder / name).write_bytes((DEMO / name).read_bytes())
    (folder / "config.json").write_text(wide.to_json())
    return load_checkpoint(folder, random_weights=True)


@dataclass(frozen=True)
class Sizes:
    """Bytes, over planner and refiner; wanted: of the weights that the recipe has in 8 bits;
    stored: of the constants by number format."""

    engines: int
    weights: int
    sources: int
    wanted: int
    stored: Mapping[str, int]


def sizes(checkpoint: Checkpoint, recipe_name: str, cache: StageCache) -> Sizes:
    # Everything that the recipe can round: what is kept for a policy's parity is not in question.
    recipe = load_recipe(recipe_name).model_copy(update={"keep": ()})
    kind = tensorrt_rtx.ENGINE
    quantized, wanted = None, 0
    if recipe.quantizes:
        quantized = quantize(checkpoint, recipe, made_up(checkpoint, 4), kind.qdq, cache)
        layers = [name for name, p in quantized.precisions.items() if p.weights == "fp8"]
        weights = (checkpoint.policy.get_submodule(name).weight for name in layers)
        wanted = sum(weight.numel() for weight in weights if isinstance(weight, Tensor))
    front = make_graphs(checkpoint, cache, lambda *_: None, quantized)
    graphs = (front.planner, front.refiners[RTX4090.refiner_form])
    built = [kind.build(graph, RTX4090.engines[0], RTX4090) for graph in graphs]
    stored: dict[str, int] = {}
    for engine in built:
        for format_, size in stored_bytes(compilation(engine).log).items():
            stored[format_] = stored.get(format_, 0) + size
    return Sizes(
        sum(compilation(engine).engine_bytes for engine in built),
        sum(compilation(engine).weight_bytes for engine in built),
        sum(tensorrt_rtx.kernel_source_bytes(tensorrt_rtx.engine_bytes(e)) for e in built),
        wanted,
        stored,
    )


def compilation(built: BuiltEngine) -> Compilation:
    assert built.compilation is not None
    return built.compilation


def both(checkpoint: Checkpoint, folder: Path) -> tuple[Sizes, Sizes]:
    cache = StageCache(folder)
    fp32, fp8 = (sizes(checkpoint, name, cache) for name in ("fp32", "fp8"))
    assert fp8.weights <= LARGEST_SHARE * fp32.weights, (fp8, fp32)
    assert fp8.wanted <= fp8.stored["fp8"] < 1.01 * fp8.wanted, "all that the recipe rounds"
    for one in (fp32, fp8):
        rest = one.engines - one.weights - one.sources
        assert 0 <= rest < 0.02 * one.engines, "weights, sources of kernels, and nothing else"
    return fp32, fp8


def test_the_demo_policy_stores_its_weights_in_fp8(tmp_path: Path) -> None:
    fp32, fp8 = both(load_checkpoint(DEMO), tmp_path)
    assert fp8.sources == pytest.approx(fp32.sources, rel=0.25), "whatever the recipe"
    assert fp8.engines - fp8.sources <= LARGEST_SHARE * (fp32.engines - fp32.sources)


def test_a_wide_policy_has_a_small_engine_in_fp8(tmp_path: Path) -> None:
    (folder := tmp_path / "wide").mkdir()
    fp32, fp8 = both(wide_checkpoint(folder), tmp_path / "cache")
    assert fp8.engines <= LARGEST_SHARE * fp32.engines
