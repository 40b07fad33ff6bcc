"""Is the release as good at its tasks as the checkpoint? The same seeded episodes under both."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from libra_edge.bundle.manifest import Manifest
from libra_edge.data.simulator import open_simulator
from libra_edge.evaluation import closed_loop
from libra_edge.evaluation.closed_loop import ControllerFactory, EpisodeResult, EpisodeSpec, Paired
from libra_edge.models import Strict
from libra_edge.parity.gates import Check
from libra_edge.workers.where import HERE, Workers

STAGE = "closed loop, release vs checkpoint"
# Largest loss of success, in shares of the episodes, that the 95 % bound may still allow.
MARGIN = 0.10
_Z_95_ONE_SIDED = 1.6448536269514722
_RESULT = TypeAdapter(EpisodeResult)


class PairedTask(Strict):
    """The episodes of one task by what became of them under checkpoint and release."""

    task: str
    both: int
    only_checkpoint: int
    only_release: int
    neither: int


@dataclass(frozen=True)
class PairedCheck(Check):
    """A judgement on paired episodes, with the table it rests on."""

    tasks: tuple[PairedTask, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The check alone, as every other."""
        return {name: value for name, value in super().to_json().items() if name != "tasks"}


def mcnemar(paired: Paired) -> float:
    """Exact two-sided p-value of McNemar's test: are the lost and the won episodes as many?"""
    differing = paired.only_a + paired.only_b
    fewer = min(paired.only_a, paired.only_b)
    tail: float = sum(math.comb(differing, k) for k in range(fewer + 1)) / 2.0**differing
    return min(1.0, 2 * tail)


def difference(paired: Paired) -> tuple[float, float]:
    """Success of b less success of a, and its one-sided 95 % lower bound.

    The bound is Agresti and Min's (2005): Wald's with half an episode added to every cell, which
    keeps its level where few episodes differ.
    """
    cells = [paired.both, paired.only_a, paired.only_b, paired.neither]
    count = sum(cells)
    lost, won, total = paired.only_a + 0.5, paired.only_b + 0.5, count + 2.0
    center = (won - lost) / total
    spread = math.sqrt(max(won + lost - (won - lost) ** 2 / total, 0.0)) / total
    return (paired.only_b - paired.only_a) / count, center - _Z_95_ONE_SIDED * spread


def judge(tasks: Mapping[str, Paired], margin: float = MARGIN) -> list[Check]:
    """The gate: the release may not be worse by more than `margin`, nor surely worse at all."""
    paired = total(tasks)
    count = paired.both + paired.only_a + paired.only_b + paired.neither
    found, bound = difference(paired)
    p = mcnemar(paired)
    table = (
        f"both {paired.both}, only checkpoint {paired.only_a}, only release {paired.only_b}, "
        f"neither {paired.neither}; difference {found:+.1%}"
    )
    worse = p < 0.05 and paired.only_a > paired.only_b
    rows = tuple(
        PairedTask(
            task=task,
            both=cells.both,
            only_checkpoint=cells.only_a,
            only_release=cells.only_b,
            neither=cells.neither,
        )
        for task, cells in tasks.items()
    )
    return [
        PairedCheck(
            STAGE,
            "lower 95 % bound of the difference",
            bound,
            -margin,
            count,
            "pass" if bound >= -margin else "fail",
            table,
            rows,
        ),
        Check(STAGE, "McNemar p, if worse", p, 0.05, count, "fail" if worse else "pass", table),
    ]


def total(tasks: Mapping[str, Paired]) -> Paired:
    """The episodes of all tasks together."""
    cells = [(p.both, p.only_a, p.only_b, p.neither) for p in tasks.values()]
    return Paired(*(sum(column) for column in zip(*cells, strict=True)))


@dataclass(frozen=True)
class ClosedLoop:
    """How to hold release and checkpoint against each other in a simulator.

    episodes: per task; seed: the first; workers: where they run.
    """

    simulator: str
    episodes: int
    seed: int = 0
    workers: Workers = HERE


def closed_loop_checks(
    asked: ClosedLoop,
    checkpoint: Path,
    release: ControllerFactory,
    manifest: Manifest,
    store: Path,
    on_stage: Callable[[str], None] = lambda _: None,
) -> list[Check]:
    """Run both over the simulator's held-out variations and judge.

    Args:
        asked: what to run.
        checkpoint: run by PyTorch.
        release: opens it as a controller, in each worker; picklable unless this process does all.
        manifest: the release's.
        store: folder of results, so that an interrupted run goes on where it was.
        on_stage: called after each episode.

    Raises:
        IncompatibleError: the policy is not for this simulated robot.
    """
    opened = open_simulator(asked.simulator, "eval")
    closed_loop.check_fits(manifest.embodiment, opened.embodiment())
    specs = closed_loop.plan_episodes(opened, opened.tasks, asked.episodes, asked.seed)
    done = 0

    def tell(result: EpisodeResult) -> None:
        nonlocal done
        done += 1
        ending = "success" if result.success else "failure"
        on_stage(f"{STAGE}: {done} run, {result.task} {result.seed}: {ending}")

    identities = manifest.policy.checkpoint_sha256, manifest.release_id
    tasks = run_paired(
        partial(closed_loop.open_controller, checkpoint),
        release,
        asked.simulator,
        specs,
        store,
        identities,
        workers=asked.workers,
        on_result=tell,
    )
    return judge(tasks)


def run_paired(
    checkpoint: ControllerFactory,
    release: ControllerFactory,
    simulator: str,
    specs: Sequence[EpisodeSpec],
    store: Path,
    identities: tuple[str, str],
    *,
    workers: Workers = HERE,
    on_result: Callable[[EpisodeResult], None] = lambda _: None,
) -> dict[str, Paired]:
    """Run what is not in the store yet, and compare task by task.

    Args:
        checkpoint: opens the one as a controller; picklable unless all runs in this process.
        release: opens the other.
        simulator: name of the simulator; its held-out variations are used.
        specs: the episodes.
        store: folder of results, so that an interrupted run goes on where it was.
        identities: what tells this checkpoint and this release from all others.
        workers: where they run.
        on_result: called after each episode that was run.
    """
    results = []
    for controller, identity in zip((checkpoint, release), identities, strict=True):
        kept = _Store(store, f"{simulator} {identity}")
        _run_missing(controller, simulator, specs, kept, workers, on_result)
        results.append([found for spec in specs if (found := kept.get(spec)) is not None])
    return closed_loop.compare_tasks(*results)


def _run_missing(
    controller: ControllerFactory,
    simulator: str,
    specs: Sequence[EpisodeSpec],
    kept: _Store,
    workers: Workers,
    on_result: Callable[[EpisodeResult], None],
) -> None:
    missing = [spec for spec in specs if kept.get(spec) is None]
    # Results come in the order of the episodes.
    coming = iter(missing)

    def keep(result: EpisodeResult) -> None:
        kept.add(next(coming), result)
        on_result(result)

    closed_loop.run(controller, partial(open_simulator, simulator, "eval"), missing, workers, keep)


class _Store:
    """Results of one policy in one simulator, a JSON line each, appended as they come."""

    def __init__(self, folder: Path, identity: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        self._path = folder / f"{name}.jsonl"
        self._results: dict[str, EpisodeResult] = {}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                self._read(line)

    def _read(self, line: str) -> None:
        # A line that was cut off by an interruption is run again.
        try:
            row = json.loads(line)
            self._results[row["spec"]] = _RESULT.validate_python(row["result"])
        except (json.JSONDecodeError, KeyError, TypeError, ValidationError):
            return

    def get(self, spec: EpisodeSpec) -> EpisodeResult | None:
        """The result of an episode, if it was run before."""
        return self._results.get(_key(spec))

    def add(self, spec: EpisodeSpec, result: EpisodeResult) -> None:
        """Keep a result."""
        self._results[_key(spec)] = result
        row = json.dumps({"spec": _key(spec), "result": asdict(result)})
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(f"{row}\n")


def _key(spec: EpisodeSpec) -> str:
    return json.dumps(asdict(spec), sort_keys=True)
