"""`make bench-targets`: engines for an RTX 4090 built on this machine, and bounds on every target.

Writes docs/measurements/rtx4090-builds.md and latency-bounds.md. The builds are of the demo policy
and of one four times as wide with random weights, beside which the sources of an engine's kernels
are small. Nothing of an engine runs here: no latency is measured, and what products run in is read
from the compiler's log. A recipe that fails is a row that says why.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch

sys.path.insert(0, str(Path(__file__).parent))

from baseline import ROOT, cpu_model, write_page

from libra_edge.catalog import Recipe, list_targets, load_recipe, load_target
from libra_edge.compiler.cache import StageCache, default_cache, tool_versions
from libra_edge.compiler.graphs.make_graphs import Front, make_graphs
from libra_edge.compiler.quantization.calibration_data import CalibrationData, read_calibration_data
from libra_edge.compiler.quantization.quantize import Quantized, in_half, quantize
from libra_edge.compiler.work.estimate import Estimate, estimate
from libra_edge.data.lerobot import Dataset
from libra_edge.engines import engine
from libra_edge.engines._log_layers import stored_bytes
from libra_edge.engines.base import BuiltEngine, Compilation
from libra_edge.engines.tensorrt_rtx import engine_bytes, kernel_source_bytes
from libra_edge.errors import LibraError
from libra_edge.policy.checkpoint import Checkpoint, load_checkpoint
from libra_edge.policy.config import read_config

KIND = "tensorrt_rtx"
PARTS = ("planner", "refiner")
RECIPES = ("fp32", "fp16", "int8", "int8-weight-only", "int4-awq", "fp8", "w4a8")
WIDE_RECIPES = ("fp32", "fp8")
ESTIMATED = ("fp16", "int8", "fp8", "int4-awq")
LARGEST_SHARE = 0.40  # of the fp32 engine that an fp8 engine may have
MOST_CHARACTERS = 200
PAPER_MS = {"planner": 60.0, "refiner": 92.0}
TIMES_WIDER = 4


@dataclass(frozen=True)
class Row:
    """One recipe's engines by part of the policy; why: what became of a part that has none."""

    policy: str
    recipe: str
    built: Mapping[str, BuiltEngine]
    why: Mapping[str, str]

    def each(self, figure: Callable[[BuiltEngine], float]) -> str:
        """A figure of each part, for a table."""
        parts = [f"{figure(self.built[p]):.1f}" if p in self.built else "–" for p in PARTS]
        return " + ".join(parts)

    def total(self, figure: Callable[[BuiltEngine], float]) -> float:
        """A figure added over both engines."""
        return sum(map(figure, self.built.values()))


def main() -> int:
    """Build, estimate, write; 1 if fp8 weights are not really stored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibrate", type=Path, default=ROOT / "runs/metaworld-train")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measurements")
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--demo-only", action="store_true", help="leave the wide policy out")
    parser.add_argument("--builds-only", action="store_true", help="leave the bounds out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.builds_only:
        bounds(options.out / "latency-bounds.md")
    return builds(options)


def builds(options: argparse.Namespace) -> int:
    """The table of engines for an RTX 4090."""
    demo = load_checkpoint(ROOT / "examples/metaworld/checkpoint")
    dataset = Dataset(options.calibrate)
    data = read_calibration_data(dataset, demo, options.samples)
    rows = list(build_rows("demo", demo, options.recipes.split(","), data))
    parameters = {"demo": millions(demo)}
    if not options.demo_only:
        with tempfile.TemporaryDirectory() as folder:
            wide = wider(demo, Path(folder))
            rows += build_rows("wide", wide, WIDE_RECIPES, data)
            parameters["wide"] = millions(wide)
    return report(options.out / "rtx4090-builds.md", rows, parameters, len(data))


def wider(demo: Checkpoint, folder: Path) -> Checkpoint:
    """The demo policy, four times as wide, with random weights."""
    config = demo.config
    assert config.refiner is not None
    backbone = config.planner.backbone
    backbone = backbone.model_copy(update={"width": TIMES_WIDER * backbone.width})
    planner = config.planner.model_copy(update={"backbone": backbone})
    refiner = config.refiner.model_copy(update={"width": TIMES_WIDER * config.refiner.width})
    wide = config.model_copy(update={"planner": planner, "refiner": refiner})
    for name in ("stats.json", "tokenizer.json"):
        (folder / name).write_bytes((demo.path / name).read_bytes())
    (folder / "config.json").write_text(wide.to_json())
    return load_checkpoint(folder, random_weights=True)


def build_rows(
    policy: str, checkpoint: Checkpoint, recipes: Sequence[str], data: CalibrationData
) -> Iterator[Row]:
    """One row per recipe; what cannot be built says why and stops nothing."""
    target, cache = load_target("rtx4090"), StageCache(default_cache())
    for name in recipes:
        print(f"{policy}: {name}", file=sys.stderr, flush=True)
        try:
            recipe = load_recipe(name)
            if policy != "demo":
                # What the demo policy's parity needs says nothing about random weights.
                recipe = recipe.model_copy(update={"keep": ()})
            front = graphs(checkpoint, recipe, data, cache)
        except Exception as error:
            yield Row(policy, name, {}, dict.fromkeys(PARTS, reason(error)))
            continue
        built, why = {}, {}
        for part, model in zip(
            PARTS, (front.planner, front.refiners[target.refiner_form]), strict=True
        ):
            try:
                built[part] = engine(KIND).build(model, target.engines[0], target)
            except Exception as error:
                why[part] = reason(error)
        yield Row(policy, name, built, why)


def reason(error: Exception) -> str:
    """Why there is no engine, in one cell of a table."""
    words = error.fact if isinstance(error, LibraError) else f"{type(error).__name__}: {error}"
    return " ".join(words.replace("|", "/").split())[:MOST_CHARACTERS]


def graphs(
    checkpoint: Checkpoint, recipe: Recipe, data: CalibrationData, cache: StageCache
) -> Front:
    """The graphs of a policy under a recipe, in the form that TensorRT wants."""
    quantized: Quantized | None = None
    if recipe.precision == "fp16":
        quantized = in_half(checkpoint)
    elif recipe.quantizes:
        quantized = quantize(checkpoint, recipe, data, engine(KIND).qdq, cache)
    return make_graphs(checkpoint, cache, lambda *_: None, quantized)


def compilation(built: BuiltEngine) -> Compilation:
    """How an engine was made."""
    assert built.compilation is not None
    return built.compilation


def weight_bytes(built: BuiltEngine) -> int:
    """What the engine stores of weights."""
    return compilation(built).weight_bytes


def size_bytes(built: BuiltEngine) -> int:
    """The serialised engine's."""
    return compilation(built).engine_bytes


def source_bytes(built: BuiltEngine) -> int:
    """What the engine stores of kernels, as source text."""
    return kernel_source_bytes(engine_bytes(built))


def judge(rows: Sequence[Row]) -> Iterator[tuple[bool, str]]:
    """Whether fp8 weights are really stored, by policy."""
    for policy in dict.fromkeys(row.policy for row in rows):
        found = {row.recipe: row for row in rows if row.policy == policy and not row.why}
        if not {"fp32", "fp8"} <= found.keys():
            yield False, f"{policy} policy: there are no fp8 and fp32 engines to compare"
            continue
        fp8, fp32 = found["fp8"], found["fp32"]
        weights, engines = (
            fp8.total(size) / fp32.total(size) for size in (weight_bytes, size_bytes)
        )
        stored: Counter[str] = Counter()
        for built in fp8.built.values():
            stored.update(stored_bytes(compilation(built).log))
        share = stored["fp8"] / stored.total()
        # The engines of so small a policy are mostly sources of kernels (docs/decisions/0044).
        value, what = (weights, "weights") if policy == "demo" else (engines, "engines")
        yield (
            value <= LARGEST_SHARE,
            f"{policy} policy, fp8: {what} {value:.0%} of fp32's (at most {LARGEST_SHARE:.0%}); "
            f"engines {engines:.0%}, weights {weights:.0%}; {share:.0%} of the stored bytes are "
            "fp8",
        )


def runs_in(row: Row, part: str) -> str:
    """What products with weights run in, by their number; or why there is no engine."""
    if part not in row.built:
        return row.why[part]
    products = engine(KIND).products(row.built[part])
    counts = Counter(product.precision for product in products)
    return ", ".join(f"{count} × {precision}" for precision, count in counts.most_common())


def report(path: Path, rows: Sequence[Row], parameters: Mapping[str, float], samples: int) -> int:
    """Write the page; returns the exit code."""
    lines: list[str] = []
    for policy, count in parameters.items():
        lines += [
            f"## {policy.capitalize()} policy, {count:.1f} M parameters",
            "",
            "| recipe | graphs MB | engines MB | of it weights MB | of it kernel sources MB "
            "| build s | planner's products run in | refiner's products run in |",
            "|---|---:|---:|---:|---:|---:|---|---|",
            *(table_row(row) for row in rows if row.policy == policy),
            "",
        ]
    target = load_target("rtx4090")
    return write_page(
        path,
        [
            "# RTX 4090 engines built without a GPU",
            "",
            "Written by `make bench-targets` (`benchmarks/targets.py`). TensorRT-RTX compiles for",
            "compute capability 8.9 on a machine without a GPU; nothing below was run, so there is",
            "no latency. Planner + refiner; the wide policy has the demo's architecture, "
            f"{TIMES_WIDER} times",
            "the width and random weights; its layers are all quantised, whereas the demo's fp8",
            "keeps those in 32 bits that its parity needs.",
        ],
        [
            *lines,
            "The sources of kernels do not depend on the recipe, and no option of the compiler",
            "leaves them out (docs/decisions/0044). int8 and fp8 products run in their format.",
            "4-bit weights are stored in 4 bits; where the table says fp32 for them, they are",
            "turned into floats before the product (docs/decisions/0042); w4a8 turns them into fp8",
            "in a layer of their own, and products that read no constant are not counted.",
        ],
        list(judge(rows)),
        [
            f"- TensorRT-RTX {engine(KIND).tools()['tensorrt-rtx']}; strongly typed, detailed "
            "profiling verbosity",
            f"- Refiner as {target.refiner_form}; calibrated on {samples} frames",
            f"- Machine: {cpu_model()}, {os.cpu_count()} cores, loaded: trust ratios of times",
            "- " + ", ".join(f"{n} {v}" for n, v in tool_versions().items()),
        ],
    )


def table_row(row: Row) -> str:
    """One line of the table."""
    cells = [
        row.each(lambda built: len(built.graph) / 1e6),
        *(row.each(lambda b, f=f: f(b) / 1e6) for f in (size_bytes, weight_bytes, source_bytes)),
        row.each(lambda built: compilation(built).duration_s),
    ]
    return f"| {row.recipe} | {' | '.join([*cells, *(runs_in(row, part) for part in PARTS)])} |"


def millions(checkpoint: Checkpoint) -> float:
    """Parameters of a policy."""
    return sum(p.numel() for p in checkpoint.policy.parameters()) / 1e6


def bounds(path: Path) -> None:
    """The table of bounds for the paper-size and the demo policy."""
    targets = [t for t in list_targets().values() if t.peak_tops]
    recipes = [load_recipe(name) for name in ESTIMATED]
    paper = read_config(ROOT / "examples/paper-size/config.json")
    demo = read_config(ROOT / "examples/metaworld/checkpoint/config.json")
    average = PAPER_MS["planner"] / paper.chunks_per_plan + PAPER_MS["refiner"]
    lines = [
        "# Bounds on latency, by target and recipe",
        "",
        "Written by `make bench-targets` (`libra-edge estimate`). From operations, bytes, kernels",
        "and the figures in `targets/`: nothing is faster, and nothing here is measured.",
        "",
        "## A policy of the paper's size (2.9 B parameters, random weights, K = 5, M = 2)",
        "",
        f"The paper measured, on an RTX 4090, planner {PAPER_MS['planner']:g} ms + refiner "
        f"{PAPER_MS['refiner']:g} ms, {average:g} ms per chunk at M = 2",
        "(deduced from its table over M). Its refiner's depth and denoising steps are not",
        "published; `examples/paper-size/config.json` says what is assumed.",
        "",
        *bound_table(estimate(paper, targets, recipes)),
        "",
        "Products run in the recipe's format, attention and what the recipe leaves out in 16",
        "bits ([what that gains](sixteen-bits.md)). Launches count by what one takes there.",
        "",
        "## The demo policy (5.7 M parameters, K = 10, M = 2)",
        "",
        *bound_table(estimate(demo, targets, recipes)),
        "",
        "So small a policy lies in a GPU's cache and is ruled by launches: no recipe changes that.",
    ]
    path.write_text("\n".join(lines) + "\n")


def bound_table(rows: Iterator[Estimate]) -> list[str]:
    """Rows of Markdown."""
    lines = [
        "| target | recipe | planner ms | refiner ms | average ms | memory GiB | limited by |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        memory = f"{row.memory_bytes / 2**30:.2f}"
        start = f"| {row.target.name} | {row.recipe.name} |"
        if row.bound is None:
            lines.append(f"{start} – | – | – | {memory} | {row.why} |")
            continue
        planner, refiner = row.bound.planner, row.bound.refiner
        times = " | ".join(f"{v:.3g}" for v in (planner.ms, refiner.ms, row.bound.average_ms))
        lines.append(f"{start} {times} | {memory} | {planner.limit}, {refiner.limit} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
