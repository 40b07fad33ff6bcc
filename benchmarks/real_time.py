"""What the age of an observation and the offset of a plan cost, and what the runtime makes of it.

In virtual time: an engine call takes the control steps that the tables say, whatever this machine
does meanwhile, so that two runs give the same figures. First the policy alone: success(d), with the
refiner's observation d steps older than the chunk's first action; success(o), with the chunk taken
o steps into its plan; success(d, o). Then async mode, with chunks begun H steps ahead, as before
`refine_ahead_steps` could be chosen, and as chosen. Writes docs/measurements/real-time.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from libra_edge.data.simulator import open_simulator
from libra_edge.data.types import Controller, FloatArray, Observation
from libra_edge.evaluation import closed_loop
from libra_edge.evaluation.closed_loop import EpisodeResult
from libra_edge.evaluation.torch_controller import TorchEngines
from libra_edge.policy.checkpoint import Checkpoint, checkpoint_sha256, load_checkpoint
from libra_edge.policy.execution.command import Command
from libra_edge.policy.execution.noise import chunk_noise
from libra_edge.policy.executor import Executor, State

ROOT = Path(__file__).resolve().parents[1]
FAUCETS = ("faucet-open", "faucet-close")
AGES = OFFSETS = (0, 1, 2, 3, 4, 5)
BOTH = (1, 2, 3, 5)
DELAYS = ((0, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4))


class Late:
    """Sync mode whose observations and plans are of earlier steps.

    Args:
        checkpoint: the policy.
        age: steps that the refiner's observation is older than the first action of its chunk.
        offset: step of the plan at which the chunk begins.
    """

    def __init__(self, checkpoint: Checkpoint, age: int, offset: int) -> None:
        self._checkpoint, self._engines = checkpoint, TorchEngines(checkpoint.policy)
        self._age, self._offset = age, offset

    def reset(self, seed: int, instruction: str) -> None:
        """Start an episode."""
        self._words = self._checkpoint.tokenizer.encode(instruction)
        self._command = Command(self._checkpoint.config.embodiment.actions)
        self._seed, self._past = seed, list[Observation]()

    def act(self, observation: Observation) -> FloatArray:
        """One control step."""
        config, step = self._checkpoint.config, len(self._past)
        self._past.append(observation)
        chunk, row = divmod(step, config.chunk)
        if row == 0:
            # Nobody saw anything before the first step: what was seen then counts.
            planned, seen = (self._past[max(0, step - n)] for n in (self._offset, self._age))
            plan, _ = self._engines.plan(planned.images, self._words, planned.state)
            first = min(self._offset, step)
            intents = plan[first : first + config.chunk]
            noise = chunk_noise(self._seed, chunk, config.noise_shape)
            self._actions = self._engines.refine(seen.images, seen.state, intents, noise)
        action = self._command.send(self._actions[row]).action
        if action is None:
            raise RuntimeError("an action is out of limits")
        return action


class Scheduled:
    """Async mode of the reference executor, and what became of its schedule.

    Args:
        checkpoint: the policy.
        planner, refiner: control steps that a call takes.
        ahead: `refine_ahead_steps`.
    """

    def __init__(self, checkpoint: Checkpoint, planner: int, refiner: int, ahead: int) -> None:
        self._checkpoint = checkpoint
        self.executor = Executor(
            TorchEngines(checkpoint.policy),
            checkpoint.config,
            "async",
            planner_delay_steps=planner,
            refiner_delay_steps=refiner,
            refine_ahead_steps=ahead,
        )
        self.steps = self.holds = self.plans = 0
        self.lags: list[int] = []
        self.offsets: list[int] = []
        self._began: dict[int, int] = {}

    def reset(self, seed: int, instruction: str) -> None:
        """Start an episode."""
        self.executor.reset(seed, self._checkpoint.tokenizer.encode(instruction))

    def act(self, observation: Observation) -> FloatArray:
        """One control step."""
        action, info = self.executor.step(observation.images, observation.state)
        self.steps += 1
        self.plans += info.planner_ran
        if info.state is State.RUNNING:
            self.offsets.append(info.plan_age_steps)
            self.lags.append(info.seen_steps - 1)
        else:
            self.holds += 1
        return action


def measure(
    title: str, make: Callable[[], Controller], episodes: int, jobs: int = 1
) -> list[EpisodeResult]:
    """Episodes of the faucets, which tell policies apart."""
    simulator = open_simulator("metaworld", "eval")
    specs = closed_loop.plan_episodes(simulator, FAUCETS, episodes)
    results = closed_loop.run(make, partial(open_simulator, "metaworld", "eval"), specs, jobs)
    found = closed_loop.summarize(results)
    print(f"{title}: {found.successes}/{found.episodes}", file=sys.stderr, flush=True)
    return results


def scheduled(
    checkpoint: Checkpoint, planner: int, refiner: int, ahead: int, episodes: int
) -> tuple[list[EpisodeResult], str]:
    """Results, and a row of the second table."""
    driver = Scheduled(checkpoint, planner, refiner, ahead)
    title = f"planner {planner}, refiner {refiner}, refine_ahead_steps {ahead}"
    results = measure(title, lambda: driver, episodes)
    choice = driver.executor.pace.ahead
    words = choice.reason.name.lower().replace("_", " ")
    found = closed_loop.summarize(results)
    lags, offsets = np.array(driver.lags), np.array(driver.offsets)
    chosen = f"{choice.steps} ({words})"
    row = (
        f"| {planner} | {refiner} | {chosen} | {found.successes}/{found.episodes} "
        f"| {lags.mean():.1f} (at most {lags.max()}) | {offsets.mean():.1f} "
        f"| {driver.plans / driver.steps:.2f} | {driver.holds / driver.steps:.1%} |"
    )
    return results, row


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "examples/metaworld/checkpoint")
    parser.add_argument("--episodes", type=int, default=12, help="per task, of two tasks")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measurements")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(arguments.checkpoint)
    config, episodes = checkpoint.config, arguments.episodes
    pairs = [
        *((d, 0) for d in AGES),
        *((0, o) for o in OFFSETS[1:] if o <= config.plan_steps - config.chunk),
        *((d, d) for d in BOTH if d <= config.plan_steps - config.chunk),
    ]
    rows: dict[str, list[EpisodeResult]] = {}
    for d, o in pairs:
        rows[f"d = {d}, o = {o}"] = measure(
            f"d = {d}, o = {o}", partial(Late, checkpoint, d, o), episodes
        )
    second = []
    for planner, refiner in DELAYS:
        for ahead in (config.chunk, 0):
            name = f"planner {planner}, refiner {refiner}, refine_ahead_steps {ahead}"
            rows[name], line = scheduled(checkpoint, planner, refiner, ahead, episodes)
            second.append(line)
    arguments.out.mkdir(parents=True, exist_ok=True)
    page = report(arguments.checkpoint, checkpoint, rows, pairs, second)
    (arguments.out / "real-time.md").write_text(page, encoding="utf-8")
    kept = {name: [asdict(result) for result in results] for name, results in rows.items()}
    (arguments.out / "real-time.json").write_text(json.dumps(kept, indent=1) + "\n")
    print(page)


def report(
    path: Path,
    checkpoint: Checkpoint,
    rows: dict[str, list[EpisodeResult]],
    pairs: Sequence[tuple[int, int]],
    second: Sequence[str],
) -> str:
    """The page."""
    config = checkpoint.config

    def cell(d: int, o: int) -> str:
        found = closed_loop.summarize(rows[f"d = {d}, o = {o}"])
        return f"{found.successes}/{found.episodes}, {found.low:.0%} to {found.high:.0%}"

    shown = "nothing" if config.real_time is None else str(config.real_time)
    each = len(rows["d = 0, o = 0"]) // len(FAUCETS)
    return "\n".join(
        [
            "# Real time: what old observations and plans cost",
            "",
            "Written by `python benchmarks/real_time.py`. Virtual time: a call takes the control "
            f"steps that a row says. {' and '.join(FAUCETS)}, {each} held-out seeds each, "
            f"H = {config.chunk}, M = {config.chunks_per_plan}, "
            f"{config.embodiment.control_hz:g} Hz; checkpoint "
            f"`{checkpoint_sha256(path)}`, trained on {shown} of real time. Intervals are "
            "Wilson's at 95 %.",
            "",
            "## The policy: d steps old observation, o steps into the plan",
            "",
            "| d | o | success |",
            "|---|---|---|",
            *(f"| {d} | {o} | {cell(d, o)} |" for d, o in pairs),
            "",
            "## Async mode: chunks begun H steps ahead (before), and as late as they can (0)",
            "",
            "`lag`: steps between an action and the observation that its chunk was made from, "
            "mean; in sync mode it is (H - 1) / 2. `plan age` likewise.",
            "",
            "| planner, steps | refiner, steps | refine_ahead_steps | success | lag | plan age "
            "| plans per step | HOLD |",
            "|---|---|---|---|---|---|---|---|",
            *second,
            "",
        ]
    )


if __name__ == "__main__":
    main()
