"""What the demo policy can do, and whether its release does the same (`make evaluate`).

Runs the checkpoint in PyTorch and the release through the C runtime over the same held-out
episodes, then the checkpoint told the opposite and with random intents, and writes
docs/measurements/closed-loop.md. About five minutes on one core.
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

from libra_edge.bundle.verify import open_release
from libra_edge.data.simulator import open_simulator
from libra_edge.parity import closed_loop
from libra_edge.parity.closed_loop import EpisodeResult, EpisodeSpec, Summary
from libra_edge.policy.checkpoint import checkpoint_sha256

ROOT = Path(__file__).resolve().parents[1]
OPPOSITE = {"faucet-open": "faucet-close", "faucet-close": "faucet-open"}


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
    found = closed_loop.summarise(results)
    print(f"{title}: {found.successes}/{found.episodes}", file=sys.stderr, flush=True)
    return results


def row(title: str, summary: Summary) -> str:
    """One line of a Markdown table."""
    return (
        f"| {title} | {summary.successes}/{summary.episodes} | {summary.rate:.0%} "
        f"| {summary.low:.0%} to {summary.high:.0%} | {summary.steps:.0f} |"
    )


def report(runs: dict[str, list[EpisodeResult]], arguments: argparse.Namespace) -> str:
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
        *(row(s.name, s) for s in closed_loop.summarise_tasks(runs["checkpoint"])),
        row("**all**", closed_loop.summarise(runs["checkpoint"])),
        "",
        "## What the policy needs",
        "",
        "`opposite`: the faucet pair, told to do the other. `random intents`: every plan replaced "
        "by uniformly random tokens; what the refiner does on its own eyes.",
        "",
        head,
        row("opposite instruction", closed_loop.summarise(runs["opposite"])),
        row("random intents", closed_loop.summarise(runs["random intents"])),
        "",
        "## Checkpoint (PyTorch) and release (C runtime), the same episodes",
        "",
        "| | release succeeds | release fails |",
        "|---|---|---|",
        f"| checkpoint succeeds | {paired.both} | {paired.only_a} |",
        f"| checkpoint fails | {paired.only_b} | {paired.neither} |",
        "",
        f"Outcomes equal in {paired.agreement:.1%} of the episodes.",
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
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "closed-loop.md").write_text(report(runs, arguments), encoding="utf-8")
    rows = {name: [asdict(result) for result in results] for name, results in runs.items()}
    (arguments.out / "closed-loop.json").write_text(json.dumps(rows, indent=1) + "\n")
    print((arguments.out / "closed-loop.md").read_text())


if __name__ == "__main__":
    main()
