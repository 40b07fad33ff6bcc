"""`make bench-paper-size`: compile a policy of the paper's size for an RTX 4090, here.

Its weights are random (`--random-weights`): what is measured is time, memory and sizes. Writes
docs/measurements/paper-size.md. Nothing of an engine runs here: there is no latency.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

sys.path.insert(0, str(Path(__file__).parent))

from baseline import cpu_model

from libra_edge.catalog import load_recipe
from libra_edge.compiler.cache import tool_versions
from libra_edge.compiler.pipeline import Compiled, compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.compiler.work.count import count
from libra_edge.policy.config import read_config

ROOT = Path(__file__).resolve().parents[1]
POLICY = ROOT / "examples/paper-size"
LIMIT_BYTES = 24e9
_INTERVAL_S = 0.2


@dataclass
class Stage:
    """One stage: when it began, and the most memory that all processes held meanwhile."""

    name: str
    begin_s: float
    peak_bytes: int = 0
    end_s: float = 0.0


@dataclass
class Watch:
    """Stages as they go by, and the resident memory of this process and its children."""

    stages: list[Stage] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def on_stage(self, stage: str, note: str) -> None:
        """As `compile_checkpoint` calls it."""
        now = time.perf_counter()
        if self.stages:
            self.stages[-1].end_s = now
        name = stage if stage in ("load", "assemble") else f"{stage}: {note}"
        self.stages.append(Stage(name, now))
        print(name, file=sys.stderr, flush=True)

    def sample(self) -> None:
        """Until `done`; runs in a thread."""
        while not self.done.wait(_INTERVAL_S):
            if self.stages:
                stage = self.stages[-1]
                stage.peak_bytes = max(stage.peak_bytes, resident_bytes(os.getpid()))


def resident_bytes(process: int) -> int:
    """Private and shared pages of a process and all below it; a page that two share counts half."""
    total = 0
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total = int(line.split()[1]) * 1024
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has ended meanwhile
        return total
    return total + sum(resident_bytes(int(child)) for child in children)


def main() -> int:
    """Compile, write the page; 1 if more memory was held than allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", type=Path, default=ROOT / "out/paper-size-rtx4090-fp16")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measurements/paper-size.md")
    parser.add_argument("--samples", type=int, help="that the graphs are held against PyTorch on")
    options = parser.parse_args()
    watch = Watch()
    sampler = threading.Thread(target=watch.sample)
    sampler.start()
    request = Request(
        POLICY,
        "rtx4090",
        "fp16",
        out=options.release,
        force=True,
        random_weights=True,
        samples=options.samples,
    )
    try:
        compiled = compile_checkpoint(request, watch.on_stage)
    finally:
        watch.done.set()
        sampler.join()
    watch.stages[-1].end_s = time.perf_counter()
    lines = page(watch.stages, compiled)
    options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0 if peak_bytes(watch.stages) < LIMIT_BYTES else 1


def peak_bytes(stages: Sequence[Stage]) -> int:
    """Of all stages."""
    return max(stage.peak_bytes for stage in stages)


def page(stages: Sequence[Stage], compiled: Compiled) -> list[str]:
    """The page, as Markdown lines."""
    recipe = load_recipe(compiled.manifest.recipe)
    work = count(read_config(POLICY / "config.json"), recipe)
    total_s = stages[-1].end_s - stages[0].begin_s
    peak = peak_bytes(stages)
    members = compiled.manifest.members
    engines = {name: member for name, member in members.items() if name.startswith("engines/")}
    return [
        "# A policy of the paper's size, compiled for an RTX 4090",
        "",
        "Written by `make bench-paper-size` (`benchmarks/paper_size.py`). RANDOM WEIGHTS: it is no",
        "policy, and no robot takes its release; what is measured is what compiling takes. No GPU:",
        "nothing of an engine was run, so there is no latency.",
        "",
        f"`compile examples/paper-size --target rtx4090 --recipe fp16 --random-weights`: "
        f"{work.parameters / 1e6:,.0f} M parameters,",
        f"**{total_s / 60:.1f} minutes, {peak / 1e9:.1f} GB of memory at the most** (limit: "
        f"{LIMIT_BYTES / 1e9:.0f} GB, {'met' if peak < LIMIT_BYTES else 'MISSED'}).",
        "",
        "| stage | s | peak GB |",
        "|---|---:|---:|",
        *(
            f"| {stage.name} | {stage.end_s - stage.begin_s:.1f} | {stage.peak_bytes / 1e9:.2f} |"
            for stage in stages
        ),
        "",
        f"Peak: resident memory of the command and its processes, every {_INTERVAL_S} s; a page",
        "that two share counts once, pages of mapped files count while they are resident.",
        "",
        "| member | MB |",
        "|---|---:|",
        *(
            f"| {name} | {member.size_bytes / 1e6:,.1f} |"
            for name, member in sorted(engines.items())
        ),
        f"| the whole release | {sum(m.size_bytes for m in members.values()) / 1e6:,.1f} |",
        "",
        "| check | metric | value | gate | samples | verdict |",
        "|---|---|---:|---:|---:|---|",
        *(
            f"| {c.stage} | {c.metric} | {c.value:.3g} | {c.threshold:.3g} | {c.samples} "
            f"| {c.verdict} |"
            for c in compiled.checks
            if c.verdict != "not measured"
        ),
        *(
            f"| {c.stage} | {c.metric} | – | – | 0 | not measured: {c.note} |"
            for c in compiled.checks
            if c.verdict == "not measured"
        ),
        "",
        "## Conditions",
        "",
        f"- {platform.system()} {platform.machine()}, {cpu_model()}, {os.cpu_count()} cores shared",
        "  with other work, one thread: trust memory and sizes more than seconds",
        *(
            f"- {name}: {engine.compiled.compiler} {engine.compiled.version}, compute capability "
            f"{engine.compiled.compute_capability}"
            for name, engine in (
                ("planner", compiled.manifest.engines.planner),
                ("refiner", compiled.manifest.engines.refiner),
            )
            if engine.compiled is not None
        ),
        "- " + ", ".join(f"{name} {version}" for name, version in tool_versions().items()),
    ]


if __name__ == "__main__":
    sys.exit(main())
