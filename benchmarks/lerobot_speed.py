r"""One chunk of an imported policy: LeRobot's own eager call, and engines of ours, in turns.

    python benchmarks/lerobot_speed.py FOLDER --reference-python PYTHON --robot FILE \\
        [--tokenizer FILE --vlm-config DIR] NAME=RELEASE ...

One thread each, the same observations and noise, medians of interleaved calls. Every engine's
row has its own error against LeRobot, as a share of the actions' spread. RELEASE may be a
release's folder or an ONNX graph. The line to LeRobot's process is part of its time: milliseconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from libra_edge.bundle.verify import open_release
from libra_edge.catalog import load_target
from libra_edge.compiler.import_folder import import_folder
from libra_edge.engines.onnxruntime import ENGINE
from libra_edge.engines.session import EnginePair
from libra_edge.parity.samples import synthetic_samples
from libra_edge.policy.executor import Engines
from libra_edge.policy.imported import family_of
from libra_edge.verification.reference import LeRobotEngines

CPU = load_target("cpu-x86_64").engines[0]


def engines_of(path: Path) -> Engines:
    """The refiner of a release, or a graph."""
    if path.is_dir():
        release = open_release(path)
        facts = release.manifest.engines.refiner
        content = release.member(facts.member).read_bytes()
        return EnginePair(None, ENGINE.load(content, facts.provider, facts.session_options))
    return EnginePair(None, ENGINE.load(path.read_bytes(), CPU.provider, CPU.session_options))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("engines", nargs="+", metavar="NAME=RELEASE")
    parser.add_argument("--reference-python", type=Path, required=True)
    parser.add_argument("--robot", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--vlm-config", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    family = family_of(arguments.folder)
    assert family is not None, "not a folder of LeRobot's"
    options = {name: getattr(arguments, name) for name in ("robot", "tokenizer", "vlm_config")}
    found = import_folder(family, arguments.folder, data=None, **options)
    config = found.config
    samples = synthetic_samples(config.embodiment, config, found.tokenizer, 2, 0)
    named = dict(word.split("=", 1) for word in arguments.engines)
    with LeRobotEngines(arguments.reference_python, found, arguments.vlm_config) as lerobot:
        runs: dict[str, Engines] = {"LeRobot, eager": lerobot}
        runs |= {name: engines_of(Path(path)) for name, path in named.items()}
        report(runs, samples, arguments.rounds)


def report(runs: dict[str, Engines], samples: list, rounds: int) -> None:  # type: ignore[type-arg]
    """The table, with the first row as what the others are held against."""
    empty = np.empty(0, np.int32)

    def call(engines: Engines, at: int) -> Callable[[], np.ndarray]:  # type: ignore[type-arg]
        s = samples[at]
        return lambda: engines.refine(s.images, s.state, empty, s.noise, s.instruction)

    answers = {name: [call(e, at)() for at in range(len(samples))] for name, e in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, engines in runs.items():
            start = time.perf_counter()
            call(engines, 0)()
            times[name].append(time.perf_counter() - start)
    first = next(iter(runs))
    wanted = np.stack(answers[first])
    span = np.maximum(np.ptp(wanted.reshape(-1, wanted.shape[-1]), 0), 1e-3)
    base = statistics.median(times[first])
    print("| | median, ms | best, ms | times as fast | largest error |\n|---|---:|---:|---:|---:|")
    for name, found in times.items():
        median = statistics.median(found)
        error = float((np.abs(np.stack(answers[name]) - wanted) / span).max())
        cells = f"{median * 1e3:.0f} | {min(found) * 1e3:.0f} | {base / median:.2f} | {error:.2g}"
        print(f"| {name} | {cells} |")


if __name__ == "__main__":
    main()
