"""Kernels: counted on modules, held against the exported graphs and against measured times."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from libra_edge.bundle.engine_facts import Work
from libra_edge.bundle.roofline import bound, policy_bound
from libra_edge.catalog import list_targets, load_recipe, load_target
from libra_edge.compiler.graphs.make_graphs import Front
from libra_edge.compiler.work.count import count
from libra_edge.compiler.work.estimate import estimate
from libra_edge.compiler.work.launches import Launches
from libra_edge.engines._tensorrt import TensorRtFamily
from libra_edge.policy.checkpoint import Checkpoint
from libra_edge.policy.config import PolicyConfig, read_config
from tests.tiny import tiny_config

ROOT = Path(__file__).parents[3]
Fronts = Callable[[str], tuple[Checkpoint, Front]]
NORMS = ("LayerNormalization", "GroupNormalization", "InstanceNormalization")
NOTHING = Work(tera_operations={"fp16": 1e-9}, weight_bytes=1, activation_bytes=1)


class Small(nn.Module):
    """One normalisation, two products around an activation, one attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        """X [1, 4, 8]."""
        y = self.second(F.gelu(self.first(self.norm(x))))
        heads = y.unflatten(-1, (2, -1)).transpose(1, 2)
        return F.scaled_dot_product_attention(heads, heads, heads) + 1.0


def test_products_and_normalisations_are_kernels_and_the_rest_is_fused() -> None:
    with torch.device("meta"):
        module, x = Small(), torch.empty(1, 4, 8)
    with torch.no_grad(), Launches() as found:
        module(x)
    assert found.operators == 6, "norm, product, gelu, product, attention, sum"
    assert found.kernels == 4, "norm, product, product, attention"


def test_the_count_is_that_of_the_graphs(fronts: Fronts) -> None:
    checkpoint, front = fronts("ddim_sample")
    work = count(checkpoint.config, load_recipe("fp32"))
    kernels = {}
    for name, content in front.exported.items():
        nodes = Counter(node.op_type for node in onnx.load_from_string(content).graph.node)
        products = sum(nodes[kind] for kind in ("MatMul", "Gemm", "Conv"))
        norms = sum(nodes[kind] for kind in NORMS)
        kernels[name] = products - nodes["Softmax"] + norms + nodes["TopK"]
    # What the first block makes of the learned queries alone is a constant of the graph: their
    # norm and their product.
    assert kernels["planner"] <= work.planner_launches.kernels <= kernels["planner"] + 2
    steps = checkpoint.config.schedule.denoise_steps
    wanted = kernels["context"] + steps * kernels["step"]
    assert work.refiner_launches.kernels == wanted
    assert work.refiner_launches.operators > wanted


def test_launches_do_not_depend_on_the_recipe_and_grow_with_the_steps() -> None:
    def kernels(steps: int, recipe: str) -> int:
        config = tiny_config(schedule={"denoise_steps": steps})
        return count(config, load_recipe(recipe), TensorRtFamily.qdq).refiner_launches.kernels

    assert kernels(2, "fp16") == kernels(2, "int8")
    one, two, five = (kernels(k, "fp16") for k in (1, 2, 5))
    assert five - one == 4 * (two - one) > 0


def test_a_bound_is_at_least_what_its_kernels_take() -> None:
    target = load_target("rtx4090").model_copy(update={"launch_us": 2.0})
    found = bound(NOTHING, target, 500)
    assert found is not None
    assert (found.limit, found.ms) == ("launches", pytest.approx(1.0))
    free = bound(NOTHING, target.model_copy(update={"launch_us": None}), 500)
    assert free is not None
    assert free.ms < 1e-3
    both = policy_bound(NOTHING, NOTHING, 4, target, (100, 500))
    assert both is not None
    assert both.average_ms == pytest.approx(0.2 / 4 + 1.0)


def measured_ms(policy: str, part: str) -> float:
    """The best time of a part in 16 bits on an H200, launched as a whole."""
    rows = json.loads((ROOT / "docs/measurements/gpu-check.json").read_text())["rows"]
    times = [
        row["times"]["p50_ms"]
        for row in rows
        if (row["policy"], row["part"], row["precision"]) == (policy, part, "fp16")
        and row["situation"] == "alone"
        and "graph" in row["engine"]
    ]
    return min(times)


def config_of(policy: str) -> PolicyConfig:
    folders = {"demo": "metaworld/checkpoint", "paper": "paper-size"}
    return read_config(ROOT / f"examples/{folders[policy]}/config.json")


def test_bounds_are_below_what_an_h200_took_and_not_far() -> None:
    """Of the demo policy: the example of the paper's size has other shapes than it had then."""
    (row,) = estimate(config_of("demo"), [load_target("h200")], [load_recipe("fp16")])
    assert row.bound is not None
    assert row.bound.planner is not None
    for part, found in (("planner", row.bound.planner), ("refiner", row.bound.refiner)):
        measured = measured_ms("demo", part)
        assert found.ms < measured < 5 * found.ms, part
        assert found.limit == "launches"


def test_every_gpu_says_what_a_launch_takes() -> None:
    for target in list_targets().values():
        gpu = target.compute_capability is not None
        assert (target.launch_us is not None) == gpu, target.name


def test_recipes_for_gpus_leave_nothing_in_32_bits() -> None:
    orin, paper = load_target("jetson-agx-orin"), config_of("paper")
    names = ("fp16", "int8", "int8-smoothquant", "int8-weight-only", "int4-awq")
    rows = estimate(paper, [orin], [load_recipe(name) for name in names])
    bounds = {row.recipe.name: row.bound for row in rows}
    half, integers = bounds["fp16"], bounds["int8"]
    assert half is not None
    assert integers is not None
    assert integers.average_ms < 0.6 * half.average_ms, "it gained a seventh with 32 bits around"
    for name in ("int8-weight-only", "int4-awq"):
        found = bounds[name]
        assert found is not None
        assert found.average_ms < half.average_ms
        work = count(paper, load_recipe(name), TensorRtFamily.qdq)
        assert set(work.planner.tera_operations) == set(work.refiner.tera_operations) == {"fp16"}
