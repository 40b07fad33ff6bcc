"""`make bench-runtime`: the runtime's own cost, and what async mode buys, on this machine.

Writes docs/measurements/runtime.md. About two minutes; needs a compiled release. Speeds are of the
engines in that release: `libra-edge verify RELEASE` says whether they are still the policy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from libra_edge import __version__
from libra_edge.policy.executor import State
from libra_edge.runtime import Policy, build

ROOT = Path(__file__).resolve().parents[1]
TICKS = 1_000_000
MOST_TICK_US = 5.0
MOST_OVERHEAD = 0.02
LEAST_GAIN = 5.0
MOST_FORMULA_ERROR = 0.02


def compile_program(folder: Path) -> Path:
    """`benchmarks/runtime.cc` with every source of the runtime."""
    root, program = build.SOURCE_ROOT, folder / "runtime"
    cache = str(build.default_cache_dir())
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    common = ["-target", f"{platform.machine()}-linux-gnu.2.35", "-O2", "-ffp-contract=off"]
    includes = [f"-I{root / 'include'}", f"-I{root / 'src'}", "-isystem"]
    includes += [str(root / "third_party/yyjson"), f'-DLE_VERSION="{__version__}"']
    json_object = str(folder / "yyjson.o")
    yyjson = str(root / "third_party/yyjson/yyjson.c")
    sources = [str(path) for path in sorted((root / "src").glob("*.cc"))]
    sources += [str(Path(__file__).with_suffix(".cc")), json_object]
    for command in (
        ["cc", *common, "-std=c11", "-c", yyjson, "-o", json_object],
        ["c++", *common, "-std=c++20", *includes, *sources, "-o", str(program)],
    ):
        subprocess.run([sys.executable, "-m", "ziglang", *command], env=environment, check=True)
    return program


def measure(program: Path, *arguments: str) -> dict[str, Any]:
    """Run one measurement of the program."""
    output = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return dict(json.loads(output.stdout))


def boundary_latencies(
    policy: Policy, asynchronous: bool, hertz: float, steps: int
) -> tuple[list[float], dict[str, Any]]:
    """Time (ms) from asking for an action to having it, at each chunk boundary of a live loop."""
    rng = np.random.default_rng(1)
    info = policy.info
    shape = (info.cameras, info.image_height, info.image_width, 3)
    frames = rng.integers(0, 256, (8, *shape), dtype=np.uint8)
    state = np.zeros(info.state_dim, dtype=np.float32)
    policy.set_instruction(np.ones(info.instruction_length, dtype=np.int64))
    if asynchronous:
        policy.start()
    found, chunk, running, due = [], -1, 0, time.monotonic()
    for step in range(steps):
        policy.observe(frames[step % len(frames)], state, time.monotonic_ns())
        begin = time.perf_counter()
        outcome = policy.tick(time.monotonic_ns())[1] if asynchronous else policy.step()[1]
        passed_ms = (time.perf_counter() - begin) * 1e3
        running += outcome.state is State.RUNNING
        if outcome.state is State.RUNNING and outcome.chunk != chunk:
            chunk = outcome.chunk
            found.append(passed_ms)
        due += 1 / hertz
        time.sleep(max(0.0, due - time.monotonic()))
    stats = policy.stats() if asynchronous else {}
    policy.stop()
    return found, {"running": running, "steps": steps, **stats}


def p99(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return float(np.percentile(values, 99))


def verdict(holds: bool) -> str:
    """A word for a table."""
    return "yes" if holds else "**no**"


def words(found: dict[str, Any]) -> str:
    """What the table leaves out, one paragraph per measurement."""
    tick, cost, formula, live = (found[k] for k in ("tick", "overhead", "latency", "live"))
    stats, sync, fast = live["info"], live["sync"], live["async"]
    priority = "has" if tick["fifo"] else "was refused"
    tick_words = [
        f"Ticks: p50 {tick['p50_ns']} ns, p99 {tick['p99_ns']} ns, p99.9 {tick['p999_ns']} ns,",
        f"largest {tick['max_ns'] / 1e3:.0f} µs;",
        f"{tick['running'] / tick['ticks']:.1%} of them RUNNING,",
        f"{tick['planner_calls']:,} planner and {tick['refiner_calls']:,} refiner calls meanwhile.",
        f"The control loop's thread {priority} SCHED_FIFO priority, the engines' have none.",
        "Time is read from the processor's counter inside `le_tick`, exact to 6 %.",
    ]
    cost_words = [
        f"Refiner: bare {cost['bare_ns'] / 1e6:.3f} ms,",
        f"whole chunk {cost['whole_ns'] / 1e6:.3f} ms",
        "(copies of the observation, noise, checks and queue included).",
    ]
    live_words = [
        f"Live loop at {live['hertz']:g} Hz, harness included, at chunk boundaries:",
        f"sync p50 {statistics.median(sync):.2f} ms, p99 {p99(sync):.2f} ms ({len(sync)} chunks);",
        f"async p50 {statistics.median(fast):.3f} ms, p99 {p99(fast):.3f} ms ({len(fast)} chunks),",
        f"{stats['running'] / stats['steps']:.1%} of {stats['steps']} steps RUNNING,",
        f"{stats['holds']} holds, {stats['underruns']} underruns,",
        f"planner p50 {stats['planner_ns']['p50'] / 1e6:.1f} ms,",
        f"refiner p50 {stats['refiner_ns']['p50'] / 1e6:.1f} ms.",
    ]
    formula_words = [
        "Average time per chunk against planner / M + refiner, with scripted engines that take",
        f"{formula['planner_ns'] / 1e6:g} ms and {formula['refiner_ns'] / 1e6:g} ms",
        "(the paper's 60 and 92 ms, ten times faster), one call after the other as in sync mode:",
    ]
    paragraphs = (tick_words, cost_words, live_words, formula_words)
    return "\n\n".join(textwrap.fill(" ".join(lines), 98) for lines in paragraphs)


def report(found: dict[str, Any], release: Path, policy_name: str) -> str:
    """The page."""
    tick, cost, formula, live = (found[k] for k in ("tick", "overhead", "latency", "live"))
    overhead = cost["whole_ns"] / cost["bare_ns"] - 1
    gain = p99(live["sync"]) / p99(live["async"])
    rows = []
    for chunks in (2, 3, 4, 5):
        expected = formula["planner_ns"] / chunks + formula["refiner_ns"]
        measured = formula[str(chunks)]
        error = measured / expected - 1
        rows.append(f"| {chunks} | {expected / 1e6:.2f} | {measured / 1e6:.2f} | {error:+.1%} |")
    return f"""# The runtime, measured

Written by `make bench-runtime` on {found["date"]}: {platform.machine()}, {os.cpu_count()} cores,
load average {found["load"]} at the start, release `{policy_name}` ({release.name}), one thread per
engine. Ratios hold better than milliseconds on a machine that others use too.

| | bound | measured | holds |
|---|---|---|---|
| `le_tick`, p99.9 of {tick["ticks"]:,} ticks, both engine threads burning a core | 5 µs \
| {tick["p999_ns"] / 1e3:.2f} µs | {verdict(tick["p999_ns"] <= MOST_TICK_US * 1e3)} |
| a refiner chunk through the runtime over the bare ONNX Runtime call (medians of \
{cost["count"]}, in turn) | 2 % | {overhead:.2%} | {verdict(overhead <= MOST_OVERHEAD)} |
| p99 of the action latency at chunk boundaries, sync over async | 5× | {gain:.0f}× \
| {verdict(gain >= LEAST_GAIN)} |

{words(found)}

| M | formula, ms | measured, ms | difference |
|---|---|---|---|
{chr(10).join(rows)}
"""


def main() -> int:
    """Measure, write the page, say whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", type=Path, default=ROOT / "out/metaworld-demo")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measurements/runtime.md")
    parser.add_argument("--hertz", type=float, help="rate of the live loop; default: the robot's")
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    with tempfile.TemporaryDirectory() as folder:
        program = compile_program(Path(folder))
        found["overhead"] = measure(program, "overhead", str(arguments.release), "200")
        found["latency"] = measure(program, "latency")
        found["tick"] = measure(program, "tick", str(TICKS))
    with Policy(arguments.release) as policy:
        hertz = arguments.hertz or policy.info.control_hz
        live: dict[str, Any] = {"hertz": hertz}
        live["sync"], _ = boundary_latencies(policy, False, hertz, arguments.steps)
        live["async"], live["info"] = boundary_latencies(policy, True, hertz, arguments.steps)
        found["live"] = live
        page = report(found, arguments.release, policy.info.name)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(page, encoding="utf-8")
    print(page)
    return int("**no**" in page)


if __name__ == "__main__":
    sys.exit(main())
