"""`make bench-rest`: recipes for GPUs with what they do not round in 32 bits and in 16.

Writes docs/measurements/sixteen-bits.md, and every figure to sixteen-bits.json. Bounds are those of
`libra-edge estimate`; engines are built for an RTX 4090 on a machine without one, and what they run
in is read from TensorRT-RTX's log; parity is simulated, by PyTorch, which rounds after every operator,
and by ONNX Runtime on the CPU. Bounds with launches are held against what an H200 took.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import onnx
import torch

sys.path.insert(0, str(Path(__file__).parent))

from baseline import ROOT, cpu_model, write_page

from libra_edge.catalog import Number, Recipe, load_recipe, load_target
from libra_edge.compiler.cache import StageCache, default_cache, tool_versions
from libra_edge.compiler.graphs.make_graphs import Front, make_graphs
from libra_edge.compiler.graphs.staged_engines import fused_engines
from libra_edge.compiler.quantization.calibration_data import CalibrationData, read_calibration_data
from libra_edge.compiler.quantization.quantize import as_the_recipe_says
from libra_edge.compiler.work.count import count
from libra_edge.compiler.work.estimate import pair_bound
from libra_edge.data.lerobot import Dataset
from libra_edge.engines import engine
from libra_edge.engines._log_layers import engine_layers
from libra_edge.engines.base import BuiltEngine
from libra_edge.errors import LibraError
from libra_edge.evaluation.torch_controller import torch_engines
from libra_edge.parity.gates import Check, compare, run_engines
from libra_edge.parity.samples import Sample, choose_samples
from libra_edge.policy.checkpoint import Checkpoint, load_checkpoint
from libra_edge.policy.config import PolicyConfig, read_config
from targets import reason

KIND = "tensorrt_rtx"
PARTS = ("planner", "refiner")
RECIPES = ("fp16", "int8", "int8-smoothquant", "int8-weight-only", "int4-awq", "fp8", "w4a8")
TARGETS = ("rtx4090", "jetson-agx-orin", "jetson-agx-thor")
RESTS: tuple[Number, ...] = ("fp32", "fp16")
PRODUCTS = ("MatMul", "Gemm", "Conv")
POLICIES = {"paper": "examples/paper-size", "demo": "examples/metaworld/checkpoint"}
MEASURED = ROOT / "docs/measurements/gpu-check.json"


@dataclass
class Row:
    """One recipe with one rest. Lists by part of the policy; why: what became of a missing one.

    runs_in: products with weights by what they run in; in_fp32: products, attention's too, that
    read 32-bit floats; layers: of the engine, as its log lists them; parity: checks by simulator.
    """

    recipe: str
    rest: str
    runs_in: dict[str, dict[str, int]] = field(default_factory=dict)
    in_fp32: dict[str, int] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)
    engine_bytes: dict[str, int] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    parity: dict[str, list[dict[str, object]]] = field(default_factory=dict)

    def passes(self) -> bool:
        """Whether every gate holds in both simulations."""
        checks = [check for checks in self.parity.values() for check in checks]
        return bool(checks) and all(check["verdict"] == "pass" for check in checks)


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
    options = parser.parse_args()
    torch.set_num_threads(1)
    raw = options.out / "sixteen-bits.json"
    if not options.again:
        rows = list(measure(options))
        kept = {"rows": [asdict(row) for row in rows], "conditions": conditions(options)}
        raw.write_text(json.dumps(kept, indent=1) + "\n")
    kept = json.loads(raw.read_text())
    rows = [Row(**row) for row in kept["rows"]]
    return write_page(
        options.out / "sixteen-bits.md", HEAD, page(rows), list(judge(rows)), kept["conditions"]
    )


def measure(options: argparse.Namespace) -> Iterator[Row]:
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
            front = simulate(row, demo, recipe, data, samples, cache)
            build(row, front)
            yield row


def simulate(
    row: Row,
    demo: Checkpoint,
    recipe: Recipe,
    data: CalibrationData,
    samples: Sequence[Sample],
    cache: StageCache,
) -> Front:
    """Hold the recipe's policy and its graphs against the policy as trained."""
    form = replace(engine(KIND).qdq, rest=row.rest)
    quantized = as_the_recipe_says(demo, recipe, data, form, cache)
    assert quantized is not None
    front = make_graphs(demo, cache, lambda *_: None, quantized, ("loop",))
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
    return front


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
    """Layers that multiply, of weights or of activations, and read 32-bit floats."""
    graph = onnx.ModelProto.FromString(built.graph).graph
    bodies = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    names = {n.name for g in (graph, *bodies) for n in g.node if n.op_type in PRODUCTS}
    return sum(
        bool(names.intersection(layer.nodes)) and "fp32" in layer.input_formats
        for layer in read_layers(built)
    )


HEAD = [
    "# The rest in 16 bits",
    "",
    "Written by `make bench-rest` (`benchmarks/rest.py`); every figure in `sixteen-bits.json`.",
    "*Before*: attention, softmax, normalisation and layers that a recipe does not round are in 32",
    "bits, weight-only products too. *After*: in 16 bits, as engines for GPUs are given now",
    "([0119](../decisions/0119-the-rest-in-16-bits.md)). Nothing below was run on a GPU but the last",
    "table's measured column.",
]


def page(rows: Sequence[Row]) -> list[str]:
    """Every table."""
    lines: list[str] = []
    for policy, folder in POLICIES.items():
        config = read_config(ROOT / folder / "config.json")
        lines += [f"## Bounds, {policy} policy", "", *bound_table(config), ""]
    return [
        *lines,
        "With launches both ways, so that the difference is the rest's alone. Where launches rule,",
        "no recipe changes the bound.",
        "",
        *("## What an RTX 4090's engines run in, demo policy", "", *build_table(rows), ""),
        "Products with weights by what TensorRT-RTX's log says they run in, planner; refiner. *In",
        "32 bits*: layers that multiply, attention's too, and read 32-bit floats. Products of w4a8",
        "read no constant, as its weights become 8-bit floats in a layer of their own; those in 16",
        "bits are what it does not round.",
        "",
        *("## Parity by simulation, demo policy", "", *parity_table(rows), ""),
        "PyTorch rounds the result of every operator to 16 bits and sums products in 32, as tensor",
        "cores do. ONNX Runtime has no 16-bit arithmetic on a CPU: it widens, and leaves the rounding",
        "between two widened operators out. So the first is the stricter one.",
        "",
        *("## Launches, held against an H200", "", *launch_table(), ""),
        "Measured: medians of `gpu-check.json`, 16-bit floats, one captured graph per call (PyTorch",
        "launches every operator, the CUDA provider every node). Kernels: of the fusion model",
        "([0120](../decisions/0120-bounds-count-kernels.md)), which is optimistic.",
        "",
        *("## The fusion model beside TensorRT-RTX", "", *fusion_table(rows)),
    ]


def bounds_of(
    config: PolicyConfig, target_name: str, recipe: Recipe
) -> Iterator[tuple[str, float, float, float] | None]:
    """Planner, refiner and average in ms for each rest; None where the target cannot run it."""
    target = load_target(target_name)
    form = engine(target.engines[0].kind).qdq
    for rest in RESTS:
        work = count(config, recipe, replace(form, rest=rest))
        found = pair_bound(config, target, recipe, work).bound
        if found is None or found.planner is None:
            yield None
            continue
        limit = "/".join(dict.fromkeys((found.planner.limit, found.refiner.limit)))
        yield limit, found.planner.ms, found.refiner.ms, found.average_ms


def bound_table(config: PolicyConfig) -> list[str]:
    """Bounds before and after on every target."""
    lines = [
        "| target | recipe | planner ms | refiner ms | average ms | before / after | limited by |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for target in TARGETS:
        for name in RECIPES:
            before, after = bounds_of(config, target, load_recipe(name))
            start = f"| {target} | {name} |"
            if before is None or after is None:
                lines.append(f"{start} – | – | – | – | it has no such arithmetic |")
                continue
            times = " | ".join(
                f"{one:.3g} → {other:.3g}" for one, other in zip(before[1:], after[1:], strict=True)
            )
            lines.append(f"{start} {times} | {before[3] / after[3]:.2f} | {after[0]} |")
    return lines


def build_table(rows: Sequence[Row]) -> list[str]:
    """What engines run in."""
    lines = [
        "| recipe | rest | products with weights run in | in 32 bits | engines MB |",
        "|---|---|---|---:|---:|",
    ]
    for row in rows:
        runs = "; ".join(
            ", ".join(f"{n} × {kind}" for kind, n in row.runs_in[part].items())
            if part in row.runs_in
            else row.why[part]
            for part in PARTS
        )
        fp32 = " + ".join(str(row.in_fp32.get(part, "–")) for part in PARTS)
        sizes = " + ".join(
            f"{row.engine_bytes[part] / 1e6:.1f}" if part in row.engine_bytes else "–"
            for part in PARTS
        )
        lines.append(f"| {row.recipe} | {row.rest} | {runs} | {fp32} | {sizes} |")
    return lines


def parity_table(rows: Sequence[Row]) -> list[str]:
    """Every gate, with both simulators."""
    lines = ["| recipe | rest | simulated by | gates | verdict |", "|---|---|---|---|---|"]
    for row in rows:
        for simulator, checks in row.parity.items():
            words = "; ".join(
                f"{c['metric']} {c['value']:.3g} (gate {c['threshold']:.3g})"
                for c in checks
                if c["metric"] != "finite"
            )
            held = all(check["verdict"] == "pass" for check in checks)
            verdict = "met" if held else "**missed**"
            lines.append(f"| {row.recipe} | {row.rest} | {simulator} | {words} | {verdict} |")
    return lines


def measured() -> Iterator[tuple[str, str, str, float]]:
    """Policy, part, engine and the median of a call in 16 bits, launched as a whole."""
    for row in json.loads(MEASURED.read_text())["rows"]:
        alone = row["situation"] == "alone" and row["precision"] == "fp16"
        if alone and "graph" in row["engine"] and row["policy"] in POLICIES:
            name = " ".join(filter(None, (row["part"], row["form"], row["engine"])))
            yield row["policy"], row["part"], name, row["times"]["p50_ms"]


def launch_table() -> list[str]:
    """Bounds on an H200 with and without launches, beside what was measured."""
    target, recipe = load_target("h200"), load_recipe("fp16")
    lines = [
        "| policy | engine | measured ms | operators | kernels | bound without launches ms | "
        "measured over it | bound ms | measured over it |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for policy, part, name, p50_ms in measured():
        config = read_config(ROOT / POLICIES[policy] / "config.json")
        work = count(config, recipe, engine("tensorrt").qdq)
        launched = getattr(work, f"{part.split()[0]}_launches")
        found = []
        for one in (target.model_copy(update={"launch_us": None}), target):
            bound = pair_bound(config, one, recipe, work).bound
            assert bound is not None
            found.append(getattr(bound, part.split()[0]).ms)
        cells = [f"{p50_ms:.3g}", str(launched.operators), str(launched.kernels)]
        cells += [cell for ms in found for cell in (f"{ms:.3g}", f"{p50_ms / ms:.1f}×")]
        lines.append(f"| {policy} | {name} | {' | '.join(cells)} |")
    return lines


def fusion_table(rows: Sequence[Row]) -> list[str]:
    """Kernels of the model beside the layers that engines of TensorRT-RTX have."""
    config = read_config(ROOT / POLICIES["demo"] / "config.json")
    work, steps = count(config, load_recipe("fp16")), config.schedule.denoise_steps
    context, step = per_step(config)
    model: Mapping[str, int] = {"planner": work.planner_launches.kernels, "refiner": context + step}
    lines = [
        "| recipe | part | kernels of the model | layers of the engine |",
        "|---|---|---:|---:|",
    ]
    for row in rows:
        if row.rest == "fp16":
            lines += [
                f"| {row.recipe} | {part} | {model[part]} | {row.layers[part]} |"
                for part in PARTS
                if part in row.layers
            ]
    return [*lines, "", f"A log lists the loop's body once; it runs {steps} times."]


def per_step(config: PolicyConfig) -> tuple[int, int]:
    """Kernels of the refiner's context, and of one step."""
    one, two = (
        count(
            config.model_copy(
                update={"schedule": config.schedule.model_copy(update={"denoise_steps": k})}
            ),
            load_recipe("fp16"),
        ).refiner_launches.kernels
        for k in (1, 2)
    )
    return one - (two - one), two - one


def judge(rows: Sequence[Row]) -> Iterator[tuple[bool, str]]:
    """What this page is to show."""
    after = [row for row in rows if row.rest == "fp16"]
    left = {row.recipe: sum(row.in_fp32.values()) for row in after if sum(row.in_fp32.values())}
    yield not left, f"no product in 32 bits in {len(after)} recipes for an RTX 4090: {left or 0}"
    before = {row.recipe: row.passes() for row in rows if row.rest == "fp32"}
    lost = [row.recipe for row in after if before.get(row.recipe, True) and not row.passes()]
    yield not lost, f"gates that hold with 32 bits hold with 16: lost {', '.join(lost) or 'none'}"
    paper = read_config(ROOT / POLICIES["paper"] / "config.json")
    half, integers = (
        list(bounds_of(paper, "jetson-agx-orin", load_recipe(name)))[1] for name in RECIPES[:2]
    )
    assert half is not None
    assert integers is not None
    gain = half[3] / integers[3]
    yield gain > 1.5, f"int8 on AGX Orin, paper size: {gain:.2f}× fp16's bound (at least 1.5×)"
    ratios = [float(line.split("|")[-2].strip(" ×")) for line in launch_table()[2:]]
    yield (
        max(ratios) < 10 and min(ratios) >= 1,
        f"bounds on an H200 are below what was measured, by {min(ratios):.1f} to "
        f"{max(ratios):.1f}×",
    )


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
