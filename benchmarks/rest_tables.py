"""The tables of `rest.py`: what recipes for GPUs gain from a rest in 16 bits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from baseline import ROOT

from libra_edge.catalog import Number, Recipe, load_recipe, load_target
from libra_edge.compiler.work.count import count
from libra_edge.compiler.work.estimate import pair_bound
from libra_edge.engines import engine
from libra_edge.policy.config import PolicyConfig, read_config

PARTS = ("planner", "refiner")
RECIPES = ("fp16", "int8", "int8-smoothquant", "int8-weight-only", "int4-awq", "fp8", "w4a8")
TARGETS = ("rtx4090", "jetson-agx-orin", "jetson-agx-thor")
RESTS: tuple[Number, ...] = ("fp32", "fp16")
POLICIES = {"paper": "examples/paper-size", "demo": "examples/metaworld/checkpoint"}
MEASURED = ROOT / "docs/measurements/gpu-check.json"


@dataclass
class Row:
    """One recipe with one rest. Lists by part of the policy; why: what became of a missing one.

    runs_in: products with weights by what they run in; in_fp32: layers of products, attention's
    too, that read 32-bit floats and no others; layers: of the engine, as its log lists them;
    parity: checks by simulator.
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


HEAD = [
    "# The rest in 16 bits",
    "",
    "Written by `make bench-rest` (`benchmarks/rest.py`); every figure in `sixteen-bits.json`.",
    "*Before*: attention, softmax, normalisation and layers that a recipe does not round are in 32",
    "bits, weight-only products too. *After*: in 16 bits, as engines for GPUs are given now",
    "([0119](../decisions/0119-the-rest-in-16-bits.md)). Nothing below was run on a GPU but what",
    "the table of launches calls measured.",
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
        "32 bits*: layers that stand for a product, attention's too, or for what follows it, and",
        "read 32-bit floats alone. Products of w4a8 read no constant, as its weights become 8-bit",
        "floats in a layer of their own; those in 16 bits are what it does not round.",
        "",
        *("## Parity by simulation, demo policy", "", *parity_table(rows), ""),
        "PyTorch rounds the result of every operator to 16 bits and sums products in 32, as tensor",
        "cores do. ONNX Runtime has no 16-bit arithmetic on a CPU: it widens, and leaves the",
        "rounding between two widened operators out. So the first is the stricter one.",
        "",
        *("## Launches, held against an H200", "", *launch_table(), ""),
        "Measured: medians of `gpu-check.json`, 16-bit floats, one captured graph a call; PyTorch",
        "launches every operator, the CUDA provider every node. Kernels: of the fusion model",
        "([0120](../decisions/0120-bounds-count-kernels.md)), which is optimistic. The launch cost",
        "of an H200 is what an operator of the demo policy's refiner took, 2.2 µs.",
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
        other = row["form"] == "naive" or row["policy"] not in POLICIES
        if alone and "graph" in row["engine"] and not other:
            name = " ".join(filter(None, (row["part"], row["form"], row["engine"])))
            yield row["policy"], row["part"], name, row["times"]["p50_ms"]


def launch_table() -> list[str]:
    """Bounds on an H200 with and without launches, beside what was measured."""
    target, recipe = load_target("h200"), load_recipe("fp16")
    lines = [
        "| policy | engine | measured ms | operators | µs each | kernels "
        "| bound without launches ms | measured over it | bound ms | measured over it |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
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
        each_us = 1e3 * p50_ms / launched.operators
        cells = [f"{p50_ms:.3g}", str(launched.operators), f"{each_us:.1f}", str(launched.kernels)]
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
    yield (
        not left,
        f"no product in 32 bits in {len(after)} recipes for an RTX 4090: {left or 'none'}",
    )
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
