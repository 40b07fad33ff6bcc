"""`make bench-rest`: recipes for GPUs with what they do not round in 32 bits and in 16.

Writes docs/measurements/sixteen-bits.md, and every figure to sixteen-bits.json. Bounds are those of
`libra-edge estimate`; engines are built for an RTX 4090 on a machine without one, and what they run
in is read from TensorRT-RTX's log; parity is simulated, by PyTorch, which rounds after every
operator, and by ONNX Runtime on the CPU. Bounds with launches are held against what an H200 took.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import onnx
import torch

sys.path.insert(0, str(Path(__file__).parent))

from baseline import ROOT, cpu_model, write_page
from rest_tables import HEAD, PARTS, POLICIES, RECIPES, RESTS, Row, judge, page

from libra_edge.catalog import Recipe, load_recipe, load_target
from libra_edge.compiler.cache import StageCache, default_cache, tool_versions
from libra_edge.compiler.graphs.make_graphs import Front, make_graphs
from libra_edge.compiler.graphs.staged_engines import fused_engines
from libra_edge.compiler.quantization.calibration_data import read_calibration_data
from libra_edge.compiler.quantization.quantize import Quantized, as_the_recipe_says
from libra_edge.data.lerobot import Dataset
from libra_edge.engines import engine
from libra_edge.engines._log_layers import engine_layers
from libra_edge.engines.base import BuiltEngine
from libra_edge.errors import LibraError
from libra_edge.evaluation.torch_controller import torch_engines
from libra_edge.parity.gates import Check, compare, run_engines
from libra_edge.parity.samples import Sample, choose_samples
from libra_edge.policy.checkpoint import Checkpoint, load_checkpoint
from targets import reason

KIND = "tensorrt_rtx"
PRODUCTS = ("MatMul", "Gemm", "Conv")
INTEGERS = {"int32", "int64", "uint8", "bool"}
FLOAT_BYTES = 4


def main() -> int:
    """Measure, or read what was measured, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibrate", type=Path, default=ROOT / "examples/metaworld/training")
    parser.add_argument("--data", type=Path, default=ROOT / "examples/metaworld/heldout")
    parser.add_argument("--calibration-samples", type=int, default=256)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measurements")
    parser.add_argument("--again", action="store_true", help="write the page from the kept figures")
    parser.add_argument("--builds-only", action="store_true", help="keep the parity as it was")
    options = parser.parse_args()
    torch.set_num_threads(1)
    raw = options.out / "sixteen-bits.json"
    if not options.again:
        before = json.loads(raw.read_text())["rows"] if options.builds_only else []
        rows = list(measure(options, {(row["recipe"], row["rest"]): row for row in before}))
        kept = {"rows": [asdict(row) for row in rows], "conditions": conditions(options)}
        raw.write_text(json.dumps(kept, indent=1) + "\n")
    kept = json.loads(raw.read_text())
    rows = [Row(**row) for row in kept["rows"]]
    return write_page(
        options.out / "sixteen-bits.md", HEAD, page(rows), list(judge(rows)), kept["conditions"]
    )


def measure(
    options: argparse.Namespace, before: Mapping[tuple[str, str], dict[str, Any]]
) -> Iterator[Row]:
    """Every recipe with both rests, on the demo policy."""
    demo, cache = load_checkpoint(ROOT / POLICIES["demo"]), StageCache(default_cache())
    data = read_calibration_data(Dataset(options.calibrate), demo, options.calibration_samples)
    robot = demo.config.embodiment
    samples = choose_samples(robot, demo.config, demo.tokenizer, options.samples, 0, options.data)
    for name in options.recipes.split(","):
        recipe = load_recipe(name)
        for rest in RESTS if recipe.quantizes else ("fp16",):
            print(f"{name}, rest {rest}", file=sys.stderr, flush=True)
            row = Row(name, rest)
            form = replace(engine(KIND).qdq, rest=rest)
            quantized = as_the_recipe_says(demo, recipe, data, form, cache)
            assert quantized is not None
            front = make_graphs(demo, cache, lambda *_: None, quantized, ("loop",))
            if (name, rest) in before:
                row.parity = before[name, rest]["parity"]
            else:
                simulate(row, demo, recipe, quantized, front, samples)
            build(row, front)
            yield row


def simulate(
    row: Row,
    demo: Checkpoint,
    recipe: Recipe,
    quantized: Quantized,
    front: Front,
    samples: Sequence[Sample],
) -> None:
    """Hold the recipe's policy and its graphs against the policy as trained."""
    reference = run_engines(torch_engines(demo.policy), samples)
    dims = demo.config.embodiment.actions
    simulators = {
        "PyTorch": torch_engines(quantized.policy),
        "ONNX Runtime": fused_engines(front.planner, front.refiners["loop"]),
    }
    for name, engines in simulators.items():
        found = run_engines(engines, samples, reference.intent)
        checks: list[Check] = compare(name, reference, found, dims, recipe.gates)
        row.parity[name] = [check.to_json() for check in checks]


def build(row: Row, front: Front) -> None:
    """Engines for an RTX 4090, and what their log says."""
    target = load_target("rtx4090")
    for part, graph in zip(PARTS, (front.planner, front.refiners["loop"]), strict=True):
        assert graph is not None
        try:
            built = engine(KIND).build(graph, target.engines[0], target)
        except LibraError as error:
            row.why[part] = reason(error)
            continue
        assert built.compilation is not None
        products = engine(KIND).products(built)
        row.runs_in[part] = dict(Counter(product.precision for product in products))
        row.in_fp32[part] = products_in_fp32(built)
        row.layers[part] = sum(layer.type in KERNELS for layer in read_layers(built))
        row.engine_bytes[part] = built.compilation.engine_bytes


KERNELS = ("gemm", "correlation", "kgen", "runtime_fusion", "runtime_function")


def read_layers(built: BuiltEngine) -> list[Any]:
    """The layers of an engine's log."""
    assert built.compilation is not None
    return list(engine_layers(built.compilation.log))


def products_in_fp32(built: BuiltEngine) -> int:
    """Layers that stand for a product, and read no floats but those of 32 bits.

    A generated kernel may also read the robot's state or the sampler's numbers, which are in 32
    bits at the edges of every graph, and round them before its product.
    """
    graph = onnx.ModelProto.FromString(built.graph).graph
    bodies = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    names = {n.name for g in (graph, *bodies) for n in g.node if n.op_type in PRODUCTS}
    count = 0
    for layer in read_layers(built):
        # One number is a scale or a factor of the product, and in 32 bits in every engine.
        read = {c.format for c in layer.constants if c.size_bytes > FLOAT_BYTES}
        read |= set(layer.input_formats)
        count += bool(names.intersection(layer.nodes)) and read - INTEGERS == {"fp32"}
    return count


def conditions(options: argparse.Namespace) -> list[str]:
    """What the figures hold for."""
    return [
        f"- TensorRT-RTX {engine(KIND).tools()['tensorrt-rtx']}, strongly typed, refiner as loop",
        f"- Calibrated on {options.calibration_samples} frames of the training demonstrations that "
        f"are shipped; parity on {options.samples} held-out frames",
        f"- Machine: {cpu_model()}, {os.cpu_count()} cores",
        "- " + ", ".join(f"{n} {v}" for n, v in tool_versions().items()),
    ]


if __name__ == "__main__":
    sys.exit(main())
