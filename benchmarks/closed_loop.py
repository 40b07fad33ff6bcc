"""What the demo policy can do, and whether its release does the same (`make evaluate`).

Runs the checkpoint in PyTorch and the release through the C runtime over the same held-out
episodes, then the checkpoint told the opposite and with random intents, last the release in async
mode in real time, and writes docs/measurements/closed-loop.md. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from libra_edge.binding.live_policy import LivePolicy, summary_rows
from libra_edge.binding.values import RunOptions
from libra_edge.bundle.verify import open_release
from libra_edge.data.simulator import open_simulator
from libra_edge.evaluation import closed_loop
from libra_edge.evaluation.closed_loop import EpisodeResult, EpisodeSpec, Summary
from libra_edge.policy.checkpoint import checkpoint_sha256

ROOT = Path(__file__).resolve().parents[1]
OPPOSITE = {"faucet-open": "faucet-close", "faucet-close": "faucet-open"}
Results = dict[str, list[EpisodeResult]]


def evaluate(
    title: str, policy: Path, specs: Sequence[EpisodeSpec], jobs: int, *, shuffle: bool = False
) -> list[EpisodeResult]:
    """Run `specs` with one policy."""
    results = closed_loop.run(
        partial(closed_loop.open_controller, policy, shuffle),
        partial(open_simulator, "metaworld", "eval"),
        specs,
        jobs,
    )
    found = closed_loop.summarize(results)
    print(f"{title}: {found.successes}/{found.episodes}", file=sys.stderr, flush=True)
    return results


def evaluate_live(
    release: Path, specs: Sequence[EpisodeSpec], ahead: Sequence[int]
) -> tuple[Results, list[str]]:
    """Run `specs` in async mode, in real time, for several `refine_ahead_steps`.

    Returns:
        Results by title, and how long each one's planner and refiner took.
    """
    runs: Results = {}
    took: list[str] = []
    for steps in ahead:
        title = f"async, refine_ahead_steps = {steps}"
        live = LivePolicy(release, options=RunOptions(refine_ahead_steps=steps))
        runs[title] = closed_loop.run(
            lambda live=live: live, partial(open_simulator, "metaworld", "eval"), specs
        )
        found, stats = closed_loop.summarize(runs[title]), live.stats
        engines = [f"{n} {p50} (p99 {p99})" for n, p50, p99, _ in summary_rows(stats)][1:]
        running = f"{stats['running_ticks'] / stats['ticks']:.1%} of ticks RUNNING"
        took.append(f"{title}: {', '.join(engines)}, {running}, {stats['underruns']} underruns")
        print(f"{title}: {found.successes}/{found.episodes}", file=sys.stderr, flush=True)
    return runs, took


def row(title: str, summary: Summary) -> str:
    """One line of a Markdown table."""
    return (
        f"| {title} | {summary.successes}/{summary.episodes} | {summary.rate:.0%} "
        f"| {summary.low:.0%} to {summary.high:.0%} | {summary.steps:.0f} |"
    )


def report(runs: Results, live: Results, took: Sequence[str], arguments: argparse.Namespace) -> str:
    """The page."""
    manifest = open_release(arguments.release).manifest
    paired = closed_loop.compare(runs["checkpoint"], runs["release"])
    head = "| | success | rate | Wilson 95 % | mean steps |\n|---|---|---|---|---|"
    lines = [
        "# Closed loop: the demo policy and its release",
        "",
        "Written by `make evaluate`. Meta-World, held-out variations (split `eval`), "
        f"{arguments.episodes} seeds per task from {arguments.seed}, sync mode, "
        f"M = {manifest.policy.chunks_per_plan}, H = {manifest.policy.chunk}, "
        f"K = {manifest.policy.denoise_steps}. One thread per policy, {platform.machine()}.",
        "",
        f"- checkpoint `{checkpoint_sha256(arguments.checkpoint)}`",
        f"- release `{manifest.release_id}` ({manifest.target}, {manifest.recipe})",
        "",
        "## The right instruction (checkpoint, PyTorch)",
        "",
        head,
        *(row(s.name, s) for s in closed_loop.summarize_tasks(runs["checkpoint"])),
        row("**all**", closed_loop.summarize(runs["checkpoint"])),
        "",
        "## What the policy needs",
        "",
        "`opposite`: the faucet pair, told to do the other. `random intents`: every plan replaced "
        "by uniformly random tokens; what the refiner does on its own eyes.",
        "",
        head,
        row("opposite instruction", closed_loop.summarize(runs["opposite"])),
        row("random intents", closed_loop.summarize(runs["random intents"])),
        "",
        "## Checkpoint (PyTorch) and release (C runtime), the same episodes",
        "",
        "| | release succeeds | release fails |",
        "|---|---|---|",
        f"| checkpoint succeeds | {paired.both} | {paired.only_a} |",
        f"| checkpoint fails | {paired.only_b} | {paired.neither} |",
        "",
        f"Outcomes equal in {paired.agreement:.1%} of the episodes.",
        "",
        "## Async mode (C runtime, engines in threads, in real time beside the simulator)",
        "",
        "A chunk is computed ahead of its first step, from an observation that is up to "
        "`refine_ahead_steps` steps old when it begins; the default is H.",
        "",
        head.replace("| |", "| | task |", 1).replace("|---|", "|---|---|", 1),
        *(
            row(f"{title} | {summary.name}", summary)
            for title, results in live.items()
            for summary in closed_loop.summarize_tasks(results)
        ),
        *(
            row(f"{title} | **all**", closed_loop.summarize(results))
            for title, results in live.items()
        ),
        "",
        *(f"- {line}" for line in took),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "examples/metaworld/checkpoint")
    parser.add_argument("--release", type=Path, default=ROOT / "out/metaworld-demo")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measurements")
    arguments = parser.parse_args()
    simulator = open_simulator("metaworld", "eval")
    plan = partial(closed_loop.plan_episodes, simulator, episodes=arguments.episodes)
    right = plan(simulator.tasks, seed=arguments.seed)
    opposite = plan(tuple(OPPOSITE), seed=arguments.seed, swap=OPPOSITE)
    # Without a plan nearly every episode runs to its limit.
    few = plan(simulator.tasks, seed=arguments.seed)[:: arguments.episodes // 4]
    checkpoint, release, jobs = arguments.checkpoint, arguments.release, arguments.jobs
    runs = {
        "checkpoint": evaluate("checkpoint", checkpoint, right, jobs),
        "release": evaluate("release", release, right, jobs),
        "opposite": evaluate("opposite instruction", checkpoint, opposite, jobs),
        "random intents": evaluate("random intents", checkpoint, few, jobs, shuffle=True),
    }
    chunk = open_release(release).manifest.policy.chunk
    # Seeds of one task lie side by side.
    live, took = evaluate_live(release, right[::2], (chunk, 2, 1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    page = report(runs, live, took, arguments)
    (arguments.out / "closed-loop.md").write_text(page, encoding="utf-8")
    every = (runs | live).items()
    rows = {name: [asdict(result) for result in results] for name, results in every}
    (arguments.out / "closed-loop.json").write_text(json.dumps(rows, indent=1) + "\n")
    print((arguments.out / "closed-loop.md").read_text())


if __name__ == "__main__":
    main()
