"""Does a policy do its tasks? Seeded episodes in a simulator, or replay of recorded ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from libra_edge.bundle.verify import is_release, open_release
from libra_edge.data.extras import needs_extra
from libra_edge.data.simulator import Simulator
from libra_edge.data.types import Controller, FloatArray, Observation
from libra_edge.errors import IncompatibleError, InputError, NotMeasuredError
from libra_edge.evaluation.motion import Moment, Motion, MotionMeter, moment_of
from libra_edge.paths import StrPath
from libra_edge.policy.config import Embodiment, read_config
from libra_edge.policy.tokenizer import Tokenizer
from libra_edge.workers.ordered import map_ordered
from libra_edge.workers.where import HERE, Workers

ControllerFactory = Callable[[], Controller]
SimulatorFactory = Callable[[], Simulator]
_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class EpisodeSpec:
    """One episode to run: the scene (`task`, `seed`) and what the robot is told."""

    task: str
    seed: int
    instruction: str | None = None


@dataclass(frozen=True)
class EpisodeResult:
    """How one episode ended; `steps` counts control steps until success or the limit."""

    task: str
    seed: int
    instruction: str
    success: bool
    steps: int
    motion: Motion | None = None


class Watcher(Protocol):
    """Somebody who looks on."""

    def begin(self, spec: EpisodeSpec, observation: Observation) -> None:
        """An episode begins; the first observation."""
        ...

    def step(self, observation: Observation, action: FloatArray, moment: Moment) -> None:
        """A control step: what was seen, what was sent for it, and how that came about."""
        ...

    def end(self, success: bool) -> None:
        """The episode ended."""
        ...


@dataclass(frozen=True)
class Summary:
    """Success over some episodes, with its Wilson 95 % interval; `steps` is their mean."""

    name: str
    episodes: int
    successes: int
    rate: float
    low: float
    high: float
    steps: float


@dataclass(frozen=True)
class Paired:
    """The same episodes under two policies."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def agreement(self) -> float:
        """Share of the episodes that ended alike."""
        return (self.both + self.neither) / (self.both + self.only_a + self.only_b + self.neither)


def open_controller(
    path: StrPath, shuffle_intents: bool = False, threads: int = 1, record: StrPath | None = None
) -> Controller:
    """The policy in a release (run by the C runtime) or in a checkpoint (run by PyTorch).

    Args:
        path: release directory, `.libra` file or checkpoint folder.
        shuffle_intents: feed the refiner random intents (an ablation; checkpoints only).
        threads: threads per inference.
        record: write the run to this file (releases only).
    """
    path = Path(path)
    record = None if record is None else Path(record)
    if is_release(path):
        if shuffle_intents:
            raise InputError(
                "shuffle-needs-checkpoint",
                f"{path} is a release; its planner cannot be replaced.",
                "Name the checkpoint it was compiled from.",
            )
        from libra_edge.binding.policy import Policy
        from libra_edge.binding.recorder import Recorder

        opened = open_release(path).path
        if record is not None:
            return Recorder(opened, record, threads=threads)
        return Policy(opened, threads=threads)
    if record is not None:
        raise InputError(
            "record-needs-release",
            f"{path} is not a release; only the runtime can be recorded.",
            "Compile it, or leave out --record.",
        )
    with needs_extra("compile", f"{path} is a checkpoint, which"):
        from libra_edge.evaluation.torch_controller import TorchController
    return TorchController(path, shuffle_intents=shuffle_intents, threads=threads)


def policy_embodiment(path: StrPath) -> Embodiment:
    """The robot that a release or checkpoint was made for."""
    path = Path(path)
    if is_release(path):
        return open_release(path).manifest.embodiment
    return read_config(path / "config.json").embodiment


def policy_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a release or checkpoint."""
    if is_release(path):
        opened = open_release(path)
        return Tokenizer(opened.member("tokenizer.json"), opened.manifest.policy.instruction_length)
    length = read_config(path / "config.json").instruction_length
    return Tokenizer(path / "tokenizer.json", length)


def check_fits(policy: Embodiment, simulator: Embodiment) -> None:
    """Refuse to run a policy on a simulated robot it was not made for.

    Limits are the policy's own: how far and how fast an action may go does not change what it is.
    """
    first, second = _interface(policy), _interface(simulator)
    differ = [name for name in first if first[name] != second[name]]
    if differ:
        raise IncompatibleError(
            "embodiment-mismatch",
            f"the policy is for {policy.name}, the simulator has {simulator.name}; "
            f"they differ in {', '.join(differ)}.",
            "Use a policy that was trained on this simulator.",
        )


def _interface(embodiment: Embodiment) -> dict[str, object]:
    """What a policy and a robot have to agree on, by name."""
    plain = {name: getattr(embodiment, name) for name in type(embodiment).model_fields}
    return plain | {"actions": [(dim.name, dim.unit, dim.kind) for dim in embodiment.actions]}


def plan_episodes(
    simulator: Simulator,
    tasks: Sequence[str],
    episodes: int,
    seed: int = 0,
    swap: Mapping[str, str] | None = None,
) -> list[EpisodeSpec]:
    """The episodes of one evaluation, the same for every policy.

    Args:
        simulator: whose tasks and sentences are used.
        tasks: which tasks.
        episodes: how many per task, with seeds `seed`, `seed + 1`, ….
        seed: first seed.
        swap: per task, another task whose sentence the robot is told instead.
    """
    swap = swap or {}
    for name in (*tasks, *swap, *swap.values()):
        simulator.instructions(name)
    specs = []
    for task in tasks:
        sentences = simulator.instructions(swap[task]) if task in swap else None
        for number in range(seed, seed + episodes):
            told = sentences[number % len(sentences)] if sentences else None
            specs.append(EpisodeSpec(task, number, told))
    return specs


def run(
    controller: ControllerFactory,
    simulator: SimulatorFactory,
    specs: Sequence[EpisodeSpec],
    workers: Workers = HERE,
    on_result: Callable[[EpisodeResult], None] = lambda _: None,
    watcher: Watcher | None = None,
) -> list[EpisodeResult]:
    """Run the episodes; the results do not depend on `workers`.

    Args:
        controller: makes the policy, once per worker; picklable unless all runs in this process.
        simulator: makes the simulator, likewise.
        specs: the episodes.
        workers: where they run.
        on_result: called after each episode, in the order of `specs`.
        watcher: looks on; of one process alone.
    """
    results = []
    opened = partial(_open_loop, controller, simulator)
    for result in map_ordered(opened, partial(_run_episode, watcher), specs, workers):
        results.append(result)
        on_result(result)
    return results


@contextmanager
def _open_loop(
    controller: ControllerFactory, simulator: SimulatorFactory
) -> Iterator[tuple[Simulator, Controller]]:
    with ExitStack() as stack:
        opened = stack.enter_context(closing(simulator()))
        driver = controller()
        if isinstance(driver, AbstractContextManager):
            stack.enter_context(driver)
        yield opened, driver


def _run_episode(
    watcher: Watcher | None, loop: tuple[Simulator, Controller], spec: EpisodeSpec
) -> EpisodeResult:
    simulator, controller = loop
    meter, moment = MotionMeter(simulator.embodiment()), None
    observation = simulator.reset(spec.task, spec.seed, spec.instruction)
    instruction = observation.instruction
    controller.reset(spec.seed, instruction)
    success, steps = False, 0
    if watcher is not None:
        watcher.begin(spec, observation)
    while not success and steps < simulator.max_steps:
        action = controller.act(observation)
        moment = moment_of(controller, moment)
        meter.add(action, moment)
        if watcher is not None:
            watcher.step(observation, action, moment)
        observation, success = simulator.step(action)
        steps += 1
    if watcher is not None:
        watcher.end(success)
    return EpisodeResult(spec.task, spec.seed, instruction, success, steps, meter.motion())


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """The Wilson score interval at 95 % for a success rate."""
    if episodes == 0:
        raise NotMeasuredError("no-episodes", "no episode was run.", "Run at least one.")
    rate, z2 = successes / episodes, _Z_95**2
    center = rate + z2 / (2 * episodes)
    spread = _Z_95 * math.sqrt(rate * (1 - rate) / episodes + z2 / (4 * episodes**2))
    scale = 1 + z2 / episodes
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def summarize(results: Sequence[EpisodeResult], name: str = "all") -> Summary:
    """Success and its interval over all of `results`."""
    successes = sum(result.success for result in results)
    low, high = wilson(successes, len(results))
    steps = sum(result.steps for result in results) / len(results)
    rate = successes / len(results)
    return Summary(name, len(results), successes, rate, low, high, steps)


def summarize_tasks(results: Sequence[EpisodeResult]) -> list[Summary]:
    """One summary per task, in the order the tasks came."""
    tasks = dict.fromkeys(result.task for result in results)
    return [summarize([r for r in results if r.task == task], task) for task in tasks]


def compare(a: Sequence[EpisodeResult], b: Sequence[EpisodeResult]) -> Paired:
    """Outcomes of two policies on the same episodes.

    Raises:
        NotMeasuredError: the two runs are not over the same episodes.
    """
    outcome_a, outcome_b = (
        {(r.task, r.seed, r.instruction): r.success for r in results} for results in (a, b)
    )
    if not outcome_a or outcome_a.keys() != outcome_b.keys():
        raise NotMeasuredError(
            "runs-not-paired",
            f"{len(outcome_a)} and {len(outcome_b)} episodes, of which "
            f"{len(outcome_a.keys() & outcome_b.keys())} are the same.",
            "Run both policies on the same tasks, seeds and instructions.",
        )
    pairs = [(success, outcome_b[key]) for key, success in outcome_a.items()]
    return Paired(
        both=pairs.count((True, True)),
        only_a=pairs.count((True, False)),
        only_b=pairs.count((False, True)),
        neither=pairs.count((False, False)),
    )


def compare_tasks(a: Sequence[EpisodeResult], b: Sequence[EpisodeResult]) -> dict[str, Paired]:
    """The same, task by task in the order they came."""
    compare(a, b)
    tasks = dict.fromkeys(result.task for result in (*a, *b))
    return {
        task: compare(*([r for r in results if r.task == task] for results in (a, b)))
        for task in tasks
    }
