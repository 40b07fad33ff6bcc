"""`make bench`: what fusing the refiner gains on this machine's CPU, with the parity of each row.

Everything runs in one process on one thread, calls take turns, medians are reported. The naive
rows do what exporting the model's forward pass and looping outside gives: they encode the
observation again in each denoising step.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnxruntime as ort
import torch

sys.path.insert(0, str(Path(__file__).parent))

from baseline import (
    NAIVE_INPUTS,
    ROOT,
    NaiveStep,
    conditions,
    host_loop,
    naive_export,
    write_page,
)

from libra_edge.catalog import load_recipe
from libra_edge.compiler.engines.build import interleaved_medians
from libra_edge.compiler.graphs.export import export, to_bytes
from libra_edge.compiler.graphs.fuse import FORMS, fuse
from libra_edge.engines.onnxruntime import ENGINE
from libra_edge.engines.session import Session
from libra_edge.parity.metrics import action_error
from libra_edge.parity.samples import Sample, choose_samples
from libra_edge.policy.checkpoint import load_checkpoint
from libra_edge.policy.family import Parts
from libra_edge.policy.libra_vla.model import LibraVLA, sampler_step
from libra_edge.policy.libra_vla.split import split

NAIVE, EAGER = "naive export, host loop", "PyTorch eager"
TARGETS = {NAIVE: 2.5, EAGER: 3.5}
PARITY_SAMPLES = 32
SESSION_OPTIONS = {"session.intra_op.allow_spinning": "0"}
BUDGET_S = 60.0
Refine = Callable[[Sample, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Row:
    """One way to run the refiner."""

    name: str
    median_ms: float
    error: float


@torch.inference_mode()
def eager(policy: LibraVLA, step: NaiveStep, sample: Sample, intent: Any) -> Any:
    """PyTorch, eager, encoding the observation in each step."""
    images, state, tokens, x = (
        torch.from_numpy(a)[None] for a in (sample.images, sample.state, intent, sample.noise)
    )
    previous = torch.zeros_like(x)
    table = policy.table
    for time, row in zip(table.timesteps, table.coefficients, strict=True):
        output = step(images, state, tokens, x, torch.tensor([float(time)]))
        x, previous = sampler_step(x, output, previous, row.tolist(), table.clip_sample)
    return policy.action.denormalize(x)[0].numpy()


def load(model: bytes) -> Session:
    """An engine as a robot would load it."""
    return ENGINE.load(model, "CPUExecutionProvider", SESSION_OPTIONS, threads=1)


def refiners(policy: LibraVLA, parts: Parts, sample: Sample) -> dict[str, Refine]:
    """Every way to run the refiner, by name."""
    assert parts.context is not None
    assert parts.step is not None
    assert parts.tables is not None
    naive = load(naive_export(policy, sample))
    step = NaiveStep(policy).eval()

    def predict(*arguments: Any) -> Any:
        return naive.run(dict(zip(NAIVE_INPUTS, arguments, strict=True)))["prediction"]

    calls: dict[str, Refine] = {
        EAGER: lambda s, tokens: eager(policy, step, s, tokens),
        NAIVE: lambda s, tokens: host_loop(policy, predict, s, tokens),
    }
    context, body = export(parts.context), export(parts.step)
    for form in FORMS:
        session = load(to_bytes(fuse(context, body, parts.tables, form)))
        calls[f"fused, {form}"] = partial(_run_fused, session)
    return calls


def _run_fused(session: Session, sample: Sample, intent: Any) -> Any:
    feeds = {"images": sample.images, "state": sample.state}
    return session.run({**feeds, "intent": intent, "noise": sample.noise})["actions"]


@torch.inference_mode()
def reference(policy: LibraVLA, sample: Sample, intent: Any) -> Any:
    """The policy's own refiner, which every row has to agree with."""
    arguments = (sample.images, sample.state, intent, sample.noise)
    return policy.refine(*(torch.from_numpy(a)[None] for a in arguments))[0].numpy()


def measure(policy: LibraVLA, samples: Sequence[Sample], budget_s: float) -> list[Row]:
    """Parity of every row first, then all of them in turns, and the planner with them."""
    config = policy.config
    random = np.random.default_rng(0)
    shape = (len(samples), config.chunk, config.action_dim)
    intents = random.integers(0, config.bins, shape, dtype=np.int32)
    parts = split(policy)
    calls = refiners(policy, parts, samples[0])
    expected = np.stack([reference(policy, s, t) for s, t in zip(samples, intents, strict=True)])
    errors = {}
    for name, call in calls.items():
        found = np.stack([call(s, t) for s, t in zip(samples, intents, strict=True)])
        errors[name] = action_error(expected, found, config.embodiment.actions).max
    timed: dict[str, Callable[[], object]] = {
        name: partial(call, samples[0], intents[0]) for name, call in calls.items()
    }
    planner = load(to_bytes(export(parts.planner)))
    names = ("images", "instruction", "state")
    timed["planner"] = partial(planner.run, {name: getattr(samples[0], name) for name in names})
    errors["planner"] = planner_disagreement(policy, planner, samples)
    medians = interleaved_medians(timed, budget_s)
    return [Row(name, medians[name] * 1e3, errors[name]) for name in timed]


@torch.inference_mode()
def planner_disagreement(policy: LibraVLA, planner: Session, samples: Sequence[Sample]) -> float:
    """Fraction of intent tokens that differ from PyTorch's."""
    different = total = 0
    for s in samples:
        inputs = {"images": s.images, "instruction": s.instruction, "state": s.state}
        expected, _ = policy.plan(*(torch.from_numpy(a)[None] for a in inputs.values()))
        found = planner.run(inputs)["intent"]
        different += int((expected[0].numpy() != found).sum())
        total += found.size
    return different / total


def table(rows: Sequence[Row]) -> list[str]:
    """The result as Markdown."""
    medians = {row.name: row.median_ms for row in rows}
    lines = [
        f"| | ms | over {NAIVE} | over {EAGER} | parity |",
        "|---|---:|---:|---:|---|",
    ]
    for row in rows:
        ratios = (f"{medians[base] / row.median_ms:.2f}×" for base in (NAIVE, EAGER))
        parity = f"largest action error {row.error:.1e} of range"
        if row.name == "planner":
            ratios, parity = iter(("–", "–")), f"{row.error:.2%} of tokens differ"
        lines.append(f"| {row.name} | {row.median_ms:.2f} | {' | '.join(ratios)} | {parity} |")
    return lines


def verdicts(rows: Sequence[Row]) -> list[tuple[bool, str]]:
    """The parity of every row, then the targets, for the faster fused form."""
    limits = load_recipe("fp32").gates
    medians = {row.name: row.median_ms for row in rows}
    best = min(medians[f"fused, {form}"] for form in FORMS)
    results = []
    for row in rows:
        gate = 1 - limits.tokens if row.name == "planner" else limits.action
        results.append((row.error <= gate, f"parity of {row.name}: {row.error:.1e}, gate {gate:g}"))
    for base, target in TARGETS.items():
        ratio = medians[base] / best
        results.append((ratio >= target, f"fused over {base}: {ratio:.2f}×, target {target}×"))
    return results


def main() -> int:
    """Measure, write the page, print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path("examples/metaworld/checkpoint")
    parser.add_argument("checkpoint", nargs="?", type=Path, default=default)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measurements/refiner-cpu.md")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ort.set_default_logger_severity(3)
    before = os.getloadavg()
    loaded = load_checkpoint(arguments.checkpoint)
    if loaded.policy.refiner is None:
        parser.error("this checkpoint has no refiner to measure")
    config = loaded.config
    samples = choose_samples(
        config.embodiment, config, loaded.tokenizer, PARITY_SAMPLES, seed=0, data=None
    )
    rows = measure(loaded.policy, samples, arguments.budget_s)
    results = verdicts(rows)
    head = [
        "# The refiner on a CPU: what fusing gains",
        "",
        "Written by `make bench` (`benchmarks/refiner.py`). Trust ratios, not milliseconds.",
    ]
    held = [
        *conditions(loaded, before),
        f"- fp32, batch 1, 1 thread, medians of interleaved runs; parity on {PARITY_SAMPLES} "
        "made-up observations against `LibraVLA.refine`",
    ]
    return write_page(arguments.out, head, table(rows), results, held)


if __name__ == "__main__":
    sys.exit(main())
