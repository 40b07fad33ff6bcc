"""What a policy costs: counted without weights, held against its graphs; bounds from rates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import shape_inference
from typer.testing import CliRunner

from libra_edge.bundle.engine_facts import Work
from libra_edge.bundle.roofline import bound, policy_bound
from libra_edge.catalog import HALF, HIGH, load_recipe, load_target
from libra_edge.cli import app as program
from libra_edge.compiler.graphs.make_graphs import Front
from libra_edge.compiler.quantization.assign import choose_precisions
from libra_edge.compiler.work.count import count
from libra_edge.compiler.work.estimate import estimate
from libra_edge.engines.base import QdqForm
from libra_edge.policy.checkpoint import Checkpoint, build_policy, load_checkpoint
from libra_edge.policy.config import read_config
from tests.tiny import tiny_config, tiny_statistics

ROOT = Path(__file__).parents[3]
PAPER = ROOT / "examples/paper-size"
Fronts = Callable[[str], tuple[Checkpoint, Front]]


def operations(content: bytes) -> float:
    """Multiplications and additions of the products of an exported graph."""
    graph = shape_inference.infer_shapes(onnx.load_from_string(content)).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.value_info, *graph.input, *graph.output)
    } | {t.name: list(t.dims) for t in graph.initializer}
    total = 0.0
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv"):
            continue
        out = 1
        for dim in shapes[node.output[0]]:
            out *= dim
        weight = shapes[node.input[1]]
        inner = weight[1] * weight[2] * weight[3] if node.op_type == "Conv" else None
        if inner is None:
            left = shapes[node.input[0]]
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            inner = left[0] if transposed else left[-1]
        total += 2.0 * out * inner
    return total


def test_the_count_is_that_of_the_graphs(fronts: Fronts) -> None:
    checkpoint, front = fronts("ddim_sample")
    work = count(checkpoint.config, load_recipe("fp32"))
    exported = {name: operations(content) for name, content in front.exported.items()}
    config = checkpoint.config
    # What the first block makes of the learned queries alone is a constant of the graph.
    constant = 2.0 * config.plan_steps * config.planner.backbone.width**2
    assert work.planner.tera_operations["fp32"] * 1e12 == pytest.approx(
        exported["planner"] + constant, rel=1e-6
    )
    steps = checkpoint.config.schedule.denoise_steps
    assert work.refiner.tera_operations["fp32"] * 1e12 == pytest.approx(
        exported["context"] + steps * exported["step"], rel=1e-6
    )


def test_weights_are_those_of_the_policy() -> None:
    config = tiny_config()
    policy = build_policy(config, tiny_statistics())
    work = count(config, load_recipe("fp32"))
    assert work.parameters == sum(p.numel() for p in policy.parameters())
    assert policy.refiner is not None
    # Evaluated while compiling: no weight of any graph.
    table = [*policy.refiner.time.parameters(), *policy.refiner.modulate.parameters()]
    assert work.weight_bytes == 4 * (work.parameters - sum(p.numel() for p in table))
    half = count(config, load_recipe("fp16"))
    assert half.weight_bytes == work.weight_bytes / 2
    assert set(half.planner.tera_operations) == {"fp16"}


def test_a_recipe_moves_operations_to_its_formats() -> None:
    config = tiny_config()
    floats, integers = (count(config, load_recipe(name)) for name in ("fp32", "int8"))
    assert set(integers.planner.tera_operations) == {"fp32", "int8"}
    assert sum(integers.planner.tera_operations.values()) == pytest.approx(
        floats.planner.tera_operations["fp32"], rel=1e-6
    )
    assert integers.planner.weight_bytes < 0.5 * floats.planner.weight_bytes
    weights = count(config, load_recipe("int8-weight-only"))
    assert set(weights.planner.tera_operations) == {"fp32"}, "weight-only computes in floats"
    assert weights.planner.weight_bytes == integers.planner.weight_bytes


def test_layers_that_a_search_kept_count_as_what_they_are() -> None:
    config = tiny_config()
    policy = build_policy(config, tiny_statistics())
    recipe, form = load_recipe("int8"), QdqForm()
    chosen = choose_precisions(policy, recipe, form)
    planner = {name: HIGH if name.startswith("planner") else p for name, p in chosen.items()}
    floats, integers = count(config, load_recipe("fp32")), count(config, recipe, form)
    kept = count(config, recipe, form, planner)
    assert (kept.planner, kept.refiner) == (floats.planner, integers.refiner)
    assert count(config, recipe, form, chosen) == integers
    half = load_recipe("fp16")
    assert count(config, half, form, dict.fromkeys(chosen, HALF)) == count(config, half)


def test_each_denoising_step_costs_the_same_again() -> None:
    def refiner(steps: int) -> Work:
        schedule = {"denoise_steps": steps}
        return count(tiny_config(schedule=schedule), load_recipe("fp32")).refiner

    one, two, five = (refiner(k) for k in (1, 2, 5))
    step = two.weight_bytes - one.weight_bytes
    assert five.weight_bytes == one.weight_bytes + 4 * step
    assert step > 0


def test_a_bound_is_the_slower_of_arithmetic_and_memory() -> None:
    target = load_target("rtx4090")
    slow = Work(tera_operations={"fp16": 1.652}, weight_bytes=10**6, activation_bytes=0)
    found = bound(slow, target)
    assert found is not None
    assert (found.limit, found.ms) == ("compute", pytest.approx(10.0))
    heavy = Work(tera_operations={"fp16": 1e-6}, weight_bytes=1_008_000_000, activation_bytes=0)
    found = bound(heavy, target)
    assert found is not None
    assert (found.limit, found.ms) == ("memory", pytest.approx(1.0))
    both = policy_bound(slow, heavy, 4, target)
    assert both is not None
    assert both.average_ms == pytest.approx(10.0 / 4 + 1.0)
    assert bound(slow, load_target("cpu-x86_64")) is None
    odd = Work(tera_operations={"nvfp4": 1.0}, weight_bytes=0, activation_bytes=0)
    assert bound(odd, target) is None, "an RTX 4090 has no such arithmetic"


def test_the_paper_size_policy() -> None:
    config = read_config(PAPER / "config.json")
    work = count(config, load_recipe("fp16"))
    # With the language model's output head, which no planner has, as many as the paper says.
    assert work.parameters + 92_553 * 2_048 == pytest.approx(3.042e9, rel=0.005)
    rows = list(estimate(config, [load_target("rtx4090")], [load_recipe("fp16")]))
    (row,) = rows
    assert row.bound is not None
    # By hand: weights of each layer and its attention. Patch embedding, projector, resizing and
    # what the head's queries cost are the few percent left over.
    prompt = config.planner.backbone.prompt  # type: ignore[union-attr]
    around = sum(map(len, (*prompt.before, prompt.between, prompt.after)))
    tokens, width = 3 * 256 + around + 64 + 1, 2048
    language = 24 * (2 * (3 * width**2 + 3 * width * 8192) * tokens + 4 * tokens**2 * width)
    vision = 3 * 24 * (2 * 12 * 1024**2 * 1025 + 4 * 1025**2 * 1024)
    keys_and_values = (12 * 2 * 1024 + width) * 2 * 1024 * tokens
    tera = (language + vision + keys_and_values) / 1e12
    assert tera < work.planner.tera_operations["fp16"] < 1.03 * tera
    assert row.bound.planner.limit == "compute"
    assert tera / 165.2 * 1e3 < row.bound.planner.ms < 1.03 * tera / 165.2 * 1e3
    # Five passes over a denoising layer's 14 widths squared (its keys and values once) and one of
    # the eyes, in 16 bits.
    step, once = 12 * 14 * 1024**2, 12 * 2 * 1024**2 + 27 * (4 * 1152**2 + 2 * 1152 * 4304)
    weight_bytes = 2 * (5 * step + once)
    assert weight_bytes < work.refiner.weight_bytes < 1.01 * weight_bytes
    average = row.bound.planner.ms / config.chunks_per_plan + row.bound.refiner.ms
    assert row.bound.average_ms == pytest.approx(average, rel=1e-9)
    assert row.bound.planner.ms < 60, "below what the paper measured"
    assert row.bound.refiner.ms < 92


def test_a_pair_that_cannot_be_says_why() -> None:
    config = read_config(PAPER / "config.json")
    small = load_target("jetson-orin-nx").model_copy(update={"memory_gib": 4.0})
    targets = [load_target("jetson-agx-orin"), load_target("cpu-x86_64"), small]
    rows = estimate(config, targets, [load_recipe("fp8"), load_recipe("fp32")])
    why = {(row.target.name, row.recipe.name): row.why for row in rows}
    assert why["jetson-agx-orin", "fp8"] == "has no fp8"
    assert why["jetson-agx-orin", "fp32"] == ""
    assert why["cpu-x86_64", "fp32"] == "rates are not known"
    assert why["jetson-orin-nx", "fp32"] == "does not fit its memory"


def test_command() -> None:
    result = CliRunner().invoke(program.app, ["estimate", str(PAPER), "--json"])
    assert result.exit_code == 0, result.stderr
    body = json.loads(result.stdout)["result"]
    assert {row["target"] for row in body["rows"]} >= {"rtx4090", "jetson-agx-orin", "h200"}
    assert {row["recipe"] for row in body["rows"]} == {"fp16", "int8", "fp8", "int4-awq"}
    shown = CliRunner().invoke(program.app, ["estimate", str(PAPER), "--target", "rtx4090"])
    assert "bounds, not measurements" in shown.stdout.splitlines()[-1]


def test_random_weights_are_always_the_same_and_marked() -> None:
    folder = ROOT / "examples/metaworld/checkpoint"
    first, again = (load_checkpoint(folder, random_weights=True) for _ in range(2))
    assert first.random_weights
    trained = load_checkpoint(folder)
    assert not trained.random_weights
    assert first.sha256 == again.sha256 != trained.sha256
    pairs = zip(first.policy.parameters(), again.policy.parameters(), strict=True)
    assert all(bool((one == two).all()) for one, two in pairs)
