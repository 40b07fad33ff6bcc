"""The rows of the table: every way to run a policy in a precision, its parity and its times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu import cuda_provider
from gpu.facts import power
from gpu.kit import RECIPES, golden_of
from gpu.policies import Case, graph_file
from gpu.timing import Call, Feeds, Times, in_turns
from gpu.torch_engines import (
    PLANNER_INPUTS,
    REFINER_INPUTS,
    PlannerLoad,
    TorchEngine,
    make_stream,
    naive_body,
    on_device,
    planner_body,
    split_body,
    tables_of,
)
from libra_edge.catalog import load_recipe
from libra_edge.parity.gates import Check, Outputs, compare, run_engines
from libra_edge.parity.samples import Sample

EAGER, GRAPH, ORT = "PyTorch eager", "PyTorch CUDA graph", "CUDA provider"
ORT_GRAPH = "CUDA provider, CUDA graph"
NAIVE, SPLIT, LOOP, UNROLLED = "naive", "split", "fused, loop", "fused, unrolled"
ALONE, BESIDE, BESIDE_FIRST = "alone", "planner beside it", "planner beside it, priorities"
Make = Callable[[Any], Call]


@dataclass
class Row:
    """One engine in one situation. `why` says what went wrong where it has no times."""

    policy: str
    precision: str
    part: str
    form: str
    engine: str
    situation: str = ALONE
    judged: bool = False
    times: Times | None = None
    checks: list[Check] = field(default_factory=list)
    draw: dict[str, float] | None = None
    why: str = ""

    @property
    def passed(self) -> bool:
        """Whether it ran and every gate held."""
        return not self.why and all(check.verdict == "pass" for check in self.checks)

    @property
    def name(self) -> str:
        """Which engine this is."""
        return f"{self.part} {self.form}, {self.engine}" if self.form else f"planner, {self.engine}"

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        plain = ("policy", "precision", "part", "form", "engine", "situation", "judged", "why")
        return {
            **{name: getattr(self, name) for name in plain},
            "passed": self.passed,
            "times": self.times.to_json() if self.times else None,
            "parity": [check.to_json() for check in self.checks],
            "power": self.draw,
        }


@dataclass(frozen=True)
class Plan:
    """How long to measure, in seconds, and on what.

    kit: folder of exported graphs, or None to leave the CUDA provider out.
    """

    device: str
    alone_s: float
    beside_s: float
    power_s: float
    kit: Path | None


class Pair:
    """Two calls as `libra_edge.policy.executor.Engines`."""

    def __init__(self, planner: Call, refiner: Call) -> None:
        self._planner, self._refiner = planner, refiner

    def plan(self, images: Any, instruction: Any, state: Any) -> tuple[Any, Any]:
        """See `Engines`."""
        given = self._planner({"images": images, "instruction": instruction, "state": state})
        return given["intent"], given["margin"]

    def refine(self, images: Any, state: Any, intent: Any, noise: Any) -> Any:
        """See `Engines`."""
        feeds = {"images": images, "state": state, "intent": intent, "noise": noise}
        return self._refiner(feeds)["actions"]


def measure(case: Case, precision: str, plan: Plan) -> Iterator[Row]:
    """All rows of a policy in a precision: parity first, then times, alone and beside a planner."""
    makers = ways(case, precision, plan)
    stream = make_stream(plan.device)
    rows = [Row(case.name, precision, *key, judged=is_judged(case, precision)) for key in makers]
    calls = build(rows, makers, stream)
    planner = calls[("planner", "", GRAPH)]
    judge(rows, calls, planner, case, plan)
    time_rows(rows, calls, case, plan.alone_s)
    captured = next(row for row in rows if (row.form, row.engine) == (SPLIT, GRAPH))
    feeds = all_feeds(case)
    if plan.device == "cuda":
        captured.draw = power(
            lambda: calls[key_of(captured)](feeds[captured.part][0]), plan.power_s
        )
    yield from rows
    took = next(r.times for r in rows if key_of(r) == ("planner", "", GRAPH))
    calls.clear()
    if took is None or not plan.beside_s:
        return
    for situation in (BESIDE, BESIDE_FIRST):
        yield from beside(case, precision, plan, situation, (took.percentile_ms(50) or 1) / 1e3)


def is_judged(case: Case, precision: str) -> bool:
    """Whether there is a recipe whose gates this has to pass."""
    return case.trained and precision in RECIPES


def ways(case: Case, precision: str, plan: Plan) -> dict[tuple[str, str, str], Make]:
    """How to make each engine, by part, form and engine."""
    device, policy = plan.device, on_device(case.policy, precision, plan.device)
    tables = tables_of(case.policy)
    feeds = {part: given[0] for part, given in all_feeds(case).items()}
    bodies = {
        ("planner", ""): planner_body(policy),
        ("refiner", NAIVE): naive_body(policy, device),
        ("refiner", SPLIT): split_body(policy, tables, device),
    }
    makers: dict[tuple[str, str, str], Make] = {}
    for (part, form), body in bodies.items():
        for engine in (EAGER, GRAPH):
            makers[part, form, engine] = lambda stream, b=body, p=part, e=engine: TorchEngine(
                b, feeds[p], device, stream, graph=e == GRAPH
            )
    if plan.kit is None or not is_judged(case, precision):
        return makers
    files = {("planner", ""): "planner", ("refiner", LOOP): "refiner-loop"}
    files[("refiner", UNROLLED)] = "refiner-unrolled"
    for (part, form), name in files.items():
        file = graph_file(plan.kit, precision, name)
        # A graph with a loop in it cannot be captured: the host decides when it ends.
        for engine in (ORT, ORT_GRAPH)[: 1 if form == LOOP else 2]:
            makers[part, form, engine] = lambda s, f=file, p=part, e=engine: exported(
                f, feeds[p], device, s, e == ORT_GRAPH
            )
    return makers


def exported(file: Path, example: Feeds, device: str, stream: Any, captured: bool) -> Call:
    """An engine of the CUDA provider, on our stream where it takes that."""
    own = device == "cuda" and not cuda_provider.runs_on_our_stream(file, captured)
    if own and stream.priority != 0:
        raise RuntimeError("the provider takes no stream of ours: a priority would not reach it")
    return cuda_provider.OrtEngine(file, example, device, stream, cuda_graph=captured, own=own)


def key_of(row: Row) -> tuple[str, str, str]:
    """By which an engine is kept."""
    return row.part, row.form, row.engine


def build(
    rows: Sequence[Row], makers: Mapping[tuple[str, str, str], Make], stream: Any
) -> dict[tuple[str, str, str], Call]:
    """Make the engines of rows and run each once; a row that cannot be made says why."""
    calls = {}
    for row in rows:
        try:
            calls[key_of(row)] = makers[key_of(row)](stream)
        except Exception as error:
            row.why = " ".join(f"{type(error).__name__}: {error}".replace("|", "/").split())[:300]
    return calls


def judge(
    rows: Sequence[Row],
    calls: dict[tuple[str, str, str], Call],
    planner: Call,
    case: Case,
    plan: Plan,
) -> None:
    """Hold every engine against the policy on the CPU, and exported ones against golden vectors."""
    refiner = calls.get(("refiner", SPLIT, GRAPH)) or next(
        call for key, call in calls.items() if key[0] == "refiner"
    )
    dims = case.policy.config.embodiment.actions
    for row in rows:
        if row.why:
            continue
        own = calls[key_of(row)]
        pair = Pair(own, refiner) if row.part == "planner" else Pair(planner, own)
        recipe = row.precision if row.precision in RECIPES else "fp16"
        limits = load_recipe(recipe).gates
        against: list[tuple[str, Sequence[Sample], Outputs]] = [
            ("policy on the CPU", case.samples, case.reference)
        ]
        if plan.kit is not None and row.engine in (ORT, ORT_GRAPH):
            against.append(("golden vectors", *golden_of(plan.kit, row.precision)))
        try:
            for name, samples, expected in against:
                found = run_engines(pair, samples, expected.intent)
                row.checks += of_part(row.part, compare(name, expected, found, dims, limits))
        except Exception as error:
            row.why = " ".join(f"{type(error).__name__}: {error}".replace("|", "/").split())[:300]
            calls.pop(key_of(row))


def of_part(part: str, checks: Sequence[Check]) -> Iterator[Check]:
    """The checks that say something about the planner or about the refiner."""
    for check in checks:
        about_actions = "action" in check.metric
        if check.metric == "finite" or about_actions == (part == "refiner"):
            yield check


def all_feeds(case: Case) -> dict[str, list[Feeds]]:
    """What planners and refiners are given."""
    names = {"planner": PLANNER_INPUTS, "refiner": REFINER_INPUTS}
    given: dict[str, list[Feeds]] = {"planner": [], "refiner": []}
    for sample, intent in zip(case.samples, case.reference.used, strict=True):
        held = {**vars(sample), "intent": intent}
        for part, wanted in names.items():
            given[part].append({name: np.ascontiguousarray(held[name]) for name in wanted})
    return given


def time_rows(
    rows: Sequence[Row],
    calls: Mapping[tuple[str, str, str], Call],
    case: Case,
    budget_s: float,
    load: PlannerLoad | None = None,
    plan_s: float = 0.0,
) -> None:
    """Fill in the times of the rows that passed, or need not."""
    feeds = all_feeds(case)
    timed = {row.name: row for row in rows if not row.why}
    times = in_turns(
        {name: calls[key_of(row)] for name, row in timed.items()},
        {name: feeds[row.part] for name, row in timed.items()},
        budget_s,
        load,
        plan_s,
    )
    for name, row in timed.items():
        row.times = times[name]


def beside(case: Case, precision: str, plan: Plan, situation: str, plan_s: float) -> Iterator[Row]:
    """Refiners, each on a stream of its own, while a planner's CUDA graph runs on another."""
    makers = ways(case, precision, plan)
    last, first = (0, 0)
    if situation == BESIDE_FIRST and plan.device == "cuda":
        last, first = torch.cuda.Stream.priority_range()
    own, others = make_stream(plan.device, first), make_stream(plan.device, last)
    feeds = all_feeds(case)["planner"][0]
    planner = makers["planner", "", GRAPH](others)
    planner(feeds)
    keys = [key for key in makers if key[0] == "refiner" and key[1:] != (NAIVE, GRAPH)]
    rows = [Row(case.name, precision, *key, situation, is_judged(case, precision)) for key in keys]
    calls = build(rows, makers, own)
    judge(rows, calls, planner, case, plan)
    load = PlannerLoad(planner, others)  # type: ignore[arg-type]
    time_rows(rows, calls, case, plan.beside_s, load, plan_s)
    yield from rows
