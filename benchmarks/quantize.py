"""`make bench-quantize`: what int8 gains on this machine's CPU, with the parity of every row.

The fp32 engines are those `compile --recipe fp32` builds, the naive baseline is the model's forward
pass exported as it stands and looped outside, as in `benchmarks/refiner.py`. Every engine runs
alone, over and over, and planner and refiner of a recipe run in turns, as in sync mode. All of it
takes turns in short bursts, in one process; medians are reported, for one and for two threads.
Last, both releases drive the simulated robot over the same episodes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import onnxruntime as ort
import torch

sys.path.insert(0, str(Path(__file__).parent))

from baseline import ROOT, NaiveEngines, conditions, naive_export, write_page

from libra_edge.catalog import load_recipe, load_target
from libra_edge.compiler.cache import StageCache, default_cache
from libra_edge.compiler.engines.read_back import integer_layers, require_integers
from libra_edge.compiler.graphs.make_graphs import Front, make_graphs
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.quantization.calibration_data import read_calibration_data, require_apart
from libra_edge.compiler.quantization.quantize import quantize
from libra_edge.compiler.request import Request
from libra_edge.data.lerobot import Dataset
from libra_edge.data.simulator import open_simulator
from libra_edge.engines.base import BuiltEngine
from libra_edge.engines.onnxruntime import ENGINE
from libra_edge.engines.session import EnginePair, Session
from libra_edge.evaluation import closed_loop
from libra_edge.evaluation.torch_controller import TorchEngines
from libra_edge.parity.gates import Check, Outputs, compare, run_engines
from libra_edge.parity.samples import Sample, choose_samples
from libra_edge.policy.checkpoint import Checkpoint, load_checkpoint

NAIVE = "refiner, naive fp32 export"
# Row, row it is compared with, least ratio of engines that run alone, on one thread.
TARGETS = (
    ("planner, int8", "planner, fp32", 2.3),
    ("refiner, int8 fused", "refiner, fp32 fused", 2.0),
    ("refiner, int8 fused", NAIVE, 6.0),
)
LARGEST_BYTES = 0.30
FEWEST_EPISODES, MOST_APART = 50, 2
THREADS = (1, 2)
BUDGET_S = 60.0
# Rounds in a row, and of them not counted.
BURST, WARM_UP = 8, 2
FORMS = ("loop", "unrolled")
Call = Callable[[], object]
# Median milliseconds: of each row, by how it ran and by threads.
Medians = dict[tuple[str, int], dict[str, float]]
ALONE, IN_TURNS = "alone", "in turns"


@dataclass(frozen=True)
class Engines:
    """Everything that is measured: graphs per recipe, and the naive export."""

    fronts: dict[str, Front]
    naive: bytes

    def build(self, name: str, part: str) -> BuiltEngine:
        """One engine: its recipe's planner or a form of its refiner."""
        front = self.fronts[name]
        model = front.planner if part == "planner" else front.refiners[part]  # type: ignore[index]
        target = load_target("cpu-x86_64")
        return ENGINE.build(model, target.engines[0], target)

    def load(self, name: str, part: str, threads: int) -> Session:
        """The same, loaded."""
        built = self.build(name, part)
        return ENGINE.load(built.content, built.provider, built.session_options, threads=threads)

    def pair(self, name: str, form: str, threads: int) -> EnginePair:
        """Planner and refiner of a recipe."""
        return EnginePair(self.load(name, "planner", threads), self.load(name, form, threads))


def prepare(loaded: Checkpoint, calibrate: Path, data: Path, sample: Sample) -> Engines:
    """Compile both recipes up to their graphs, through the user's cache."""
    cache = StageCache(default_cache())
    fp32 = make_graphs(loaded, cache, lambda *_: None)
    dataset, recipe = Dataset(calibrate), load_recipe("int8")
    require_apart(dataset, Dataset(data))
    found = read_calibration_data(dataset, loaded, recipe.samples)
    quantized = quantize(loaded, recipe, found, ENGINE.qdq, cache)
    int8 = make_graphs(loaded, cache, lambda *_: None, quantized)
    return Engines({"fp32": fp32, "int8": int8}, naive_export(loaded.policy, sample))


def medians_in_bursts(sets: dict[str, list[tuple[str, Call]]], budget_s: float) -> dict[str, float]:
    """Median seconds of each call: the calls of a set in turns, sets in bursts.

    A robot never runs one recipe's engine right after another's, and on some processors the second
    is then a quarter slower (docs/decisions/0034). Bursts are short, so that whatever else the
    machine does meets all of them alike; their first rounds are left out.
    """
    times: dict[str, list[float]] = {}
    end = time.perf_counter() + budget_s
    while time.perf_counter() < end:
        for calls in sets.values():
            for done in range(BURST):
                for name, call in calls:
                    begin = time.perf_counter()
                    call()
                    if done >= WARM_UP:
                        times.setdefault(name, []).append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(engines: Engines, loaded: Checkpoint, sample: Sample, threads: int) -> Medians:
    """Median milliseconds of each row, alone and in turns."""
    chunk = loaded.config.chunk
    options = load_target("cpu-x86_64").engines[0].session_options
    naive = ENGINE.load(engines.naive, "CPUExecutionProvider", options, threads=threads)
    pairs = {
        (name, form): engines.pair(name, form, threads) for name in engines.fronts for form in FORMS
    }
    plan = (sample.images, sample.instruction, sample.state)
    intent = pairs["fp32", "loop"].plan(*plan)[0][:chunk]
    refine = (sample.images, sample.state, intent, sample.noise)
    looped = NaiveEngines(loaded.policy, naive, pairs["fp32", "loop"])
    alone = {
        f"planner, {name}": partial(pairs[name, "loop"].plan, *plan) for name in engines.fronts
    }
    alone |= {f"refiner, {n} {form}": partial(p.refine, *refine) for (n, form), p in pairs.items()}
    alone[NAIVE] = partial(looped.refine, *refine)
    sets: dict[str, list[tuple[str, Call]]] = {
        f"{ALONE} {row}": [(f"{ALONE} {row}", call)] for row, call in alone.items()
    }
    for name, form in pairs:
        rows = [f"planner, {name}"]
        rows += [f"refiner, {name} {form}"] * loaded.config.chunks_per_plan
        sets[f"{name} {form}"] = [(f"{IN_TURNS} {row}", alone[row]) for row in rows]
    seconds = medians_in_bursts(sets, BUDGET_S)
    result: Medians = {}
    for how in (ALONE, IN_TURNS):
        found = {row: 1e3 * seconds[key] for row in alone if (key := f"{how} {row}") in seconds}
        for name in engines.fronts:
            forms = [found.pop(f"refiner, {name} {form}") for form in FORMS]
            found[f"refiner, {name} fused"] = min(forms)
        result[how, threads] = found
    return result


def parity(
    engines: Engines, loaded: Checkpoint, samples: Sequence[Sample]
) -> dict[str, list[Check]]:
    """Every row against the policy in PyTorch: same observations, intents and noise."""
    expected = run_engines(TorchEngines(loaded.policy), samples)
    dims = loaded.config.embodiment.actions
    options = load_target("cpu-x86_64").engines[0].session_options
    naive = ENGINE.load(engines.naive, "CPUExecutionProvider", options)
    pairs: dict[str, Any] = {name: engines.pair(name, "loop", 1) for name in engines.fronts}
    pairs["naive"] = NaiveEngines(loaded.policy, naive, pairs["fp32"])

    def judge(name: str) -> list[Check]:
        found: Outputs = run_engines(pairs[name], samples, expected.intent)
        return compare(
            name, expected, found, dims, load_recipe("int8" if name == "int8" else "fp32").gates
        )

    return {name: judge(name) for name in pairs}


def words(checks: Sequence[Check], part: str) -> str:
    """Parity of one row."""
    value = {check.metric: check for check in checks}
    if part == "planner":
        differing = value["margin of differing tokens"]
        return (
            f"{value['tokens equal'].value:.2%} of tokens equal, those that differ have a margin "
            f"≤ {differing.value:.2g} (bound {differing.threshold:.2g})"
        )
    check = next(c for c in checks if "action error" in c.metric)
    return f"{check.metric} {check.value:.1e} (gate {check.threshold:g}); {check.note}"


def page(
    medians: Medians,
    checks: dict[str, list[Check]],
    sizes: dict[str, int],
    moved: dict[str, int],
) -> tuple[list[str], list[tuple[bool, str]]]:
    """The table and the verdicts."""
    alone = medians[ALONE, 1]
    lines = [
        "| | ms alone | ms in turns | alone over fp32 | in turns over fp32 | alone over naive "
        "| parity |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]

    def pairs(how: str, row: str, base: str | None = None) -> str:
        found = [medians[how, threads] for threads in THREADS]
        if row not in found[0]:
            return "–"
        if base is None:
            return " / ".join(f"{ms[row]:.2f}" for ms in found)
        return " / ".join(f"{ms[base] / ms[row]:.2f}×" for ms in found)

    for row in sorted(alone):
        part = row.split(",")[0]
        which = "naive" if row == NAIVE else "int8" if "int8" in row else "fp32"
        base = "planner, fp32" if part == "planner" else "refiner, fp32 fused"
        cells = [
            row,
            *(pairs(how, row) for how in (ALONE, IN_TURNS)),
            *(pairs(how, row, base) for how in (ALONE, IN_TURNS)),
            pairs(ALONE, row, NAIVE) if part == "refiner" else "–",
            words(checks[which], part),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| | engine bytes | weight bytes read per plan and chunk |",
        "|---|---:|---:|",
        *(f"| {name} | {sizes[name]:,} | {moved[name]:,} |" for name in sizes),
    ]
    results = []
    for row, base, least in TARGETS:
        ratio = alone[base] / alone[row]
        results.append((ratio >= least, f"{row} over {base}: {ratio:.2f}×, target {least}×"))
    share = sizes["int8"] / sizes["fp32"]
    results.append((share <= LARGEST_BYTES, f"int8 engine bytes: {share:.1%} of fp32, ≤ 30 %"))
    for name, found in checks.items():
        for check in found:
            text = f"{name}: {check.metric} {check.value:.3g}, gate {check.threshold:.3g}"
            results.append((check.verdict == "pass", text))
    return lines, results


def closed_loop_pairs(
    arguments: argparse.Namespace, folder: Path
) -> tuple[list[str], tuple[bool, str]]:
    """The same episodes under both releases, through the C runtime: table and verdict."""
    simulator = open_simulator("metaworld", "eval")
    specs = closed_loop.plan_episodes(simulator, simulator.tasks, arguments.episodes)
    results = {}
    for recipe, calibrate in (("fp32", None), ("int8", arguments.calibrate)):
        request = Request(
            arguments.checkpoint,
            recipe=recipe,
            out=folder / recipe,
            data=arguments.data,
            calibrate=calibrate,
        )
        release = compile_checkpoint(request).path
        results[recipe] = closed_loop.run(
            partial(closed_loop.open_controller, release),
            partial(open_simulator, "metaworld", "eval"),
            specs,
        )
    paired = closed_loop.compare(results["fp32"], results["int8"])
    fp32, int8 = (closed_loop.summarize(r).successes for r in results.values())
    lines = [
        "",
        f"Closed loop: {len(specs)} held-out episodes, the same for both, C runtime, sync mode.",
        "",
        "| both succeed | only fp32 | only int8 | neither |",
        "|---:|---:|---:|---:|",
        f"| {paired.both} | {paired.only_a} | {paired.only_b} | {paired.neither} |",
    ]
    met = len(specs) >= FEWEST_EPISODES and abs(fp32 - int8) <= MOST_APART
    words = f"closed loop: int8 succeeds in {int8}, fp32 in {fp32} of {len(specs)} episodes"
    return lines, (met, f"{words}; within {MOST_APART}, ≥ {FEWEST_EPISODES} episodes")


def main() -> int:
    """Measure, write the page, print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    example = ROOT / "examples/metaworld"
    parser.add_argument("checkpoint", nargs="?", type=Path, default=example / "checkpoint")
    parser.add_argument("--calibrate", type=Path, default=ROOT / "examples/metaworld/training")
    parser.add_argument("--data", type=Path, default=example / "heldout")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measurements/quantize-cpu.md")
    parser.add_argument("--episodes", type=int, default=12, help="per task, in closed loop")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ort.set_default_logger_severity(3)
    before = os.getloadavg()
    loaded = load_checkpoint(arguments.checkpoint)
    config = loaded.config
    samples = choose_samples(
        config.embodiment, config, loaded.tokenizer, arguments.samples, 0, arguments.data
    )
    engines = prepare(loaded, arguments.calibrate, arguments.data, samples[0])
    sizes, moved = {}, {}
    for name, front in engines.fronts.items():
        built = [engines.build(name, part) for part in ("planner", "loop")]
        products = [product for one in built for product in ENGINE.products(one)]
        require_integers(integer_layers(front.precisions), products)
        sizes[name] = sum(len(one.content) for one in built)
        moved[name] = sum(product.weight_bytes * product.runs for product in products)
    medians: Medians = {}
    for threads in THREADS:
        medians |= measure(engines, loaded, samples[0], threads)
    checks = parity(engines, loaded, samples)
    lines, results = page(medians, checks, sizes, moved)
    if arguments.episodes:
        with tempfile.TemporaryDirectory() as folder:
            table, verdict = closed_loop_pairs(arguments, Path(folder))
    else:
        table, verdict = [], (False, "closed loop: not measured")
    head = [
        "# int8 on a CPU: what quantising gains",
        "",
        "Written by `make bench-quantize` (`benchmarks/quantize.py`). Trust ratios, not "
        f"milliseconds. Parity on {len(samples)} held-out observations, same noise and intents.",
    ]
    held = [
        *conditions(loaded, before),
        "- batch 1; 1 / 2 threads; alone: an engine over and over; in turns: the planner, then the "
        "refiner for each of its M chunks, and again; all in one process, in bursts of "
        f"{BURST} rounds, medians without the first {WARM_UP}",
        "- targets are for engines alone on one thread; parity against the PyTorch policy",
    ]
    return write_page(arguments.out, head, [*lines, *table], [*results, verdict], held)


if __name__ == "__main__":
    sys.exit(main())
