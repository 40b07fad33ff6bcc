"""Build the engines of a target; of the refiner's forms keep the faster, and say why."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from libra_edge.catalog import Target
from libra_edge.compiler.cache import StageCache, sha256
from libra_edge.compiler.engines.plan import EnginePlan
from libra_edge.compiler.engines.read_back import integer_layers, require_integers
from libra_edge.compiler.graphs.fuse import Form
from libra_edge.compiler.graphs.make_graphs import Front
from libra_edge.compiler.graphs.torch_programs import programs
from libra_edge.compiler.request import Job
from libra_edge.engines import engine
from libra_edge.engines.base import BuiltEngine, Compilation, Product, Program
from libra_edge.engines.session import Array, EnginePair, Session, TensorSpec
from libra_edge.errors import InputError
from libra_edge.parity.gates import compare, require_pass, run_engines
from libra_edge.parity.samples import Sample
from libra_edge.policy.executor import Engines

# A smaller gain may be what a busy machine adds, and Loop is the smaller graph.
WORTH_UNROLLING = 1.05
FORM_SAMPLES = 8
# Why there is but one form.
_ONLY: dict[Form, str] = {
    "unrolled": "Libra-Base has no denoising loop: intents become bin centres",
    "loop": "unrolled steps share their 4-bit weights, and engines turn such weights into floats",
}
_ONE_PASS = "the policy has no denoising loop"
_HEAVY = "so large a policy is unrolled only where --form asks for it"
_PROGRAM = "the steps of a PyTorch program are unrolled"
_LEAST_ROUNDS, _MOST_ROUNDS, _BUDGET_S = 15, 200, 3.0


@dataclass(frozen=True)
class Choice:
    """The refiner's form and why, in words that any machine would repeat."""

    form: Form
    reason: str


@dataclass(frozen=True)
class Built:
    """The engines of a release, and the exact figures behind the choice (milliseconds).

    planner: None where the policy has none; products: what every matrix product really runs in,
    the planner's first.
    """

    planner: BuiltEngine | None
    refiner: BuiltEngine
    choice: Choice
    medians_ms: Mapping[str, float]
    plan: EnginePlan
    products: tuple[Product, ...] = ()

    @property
    def by_name(self) -> dict[str, BuiltEngine]:
        """Those that there are, in the order the data flows."""
        planner = {} if self.planner is None else {"planner": self.planner}
        return {**planner, "refiner": self.refiner}

    @property
    def runs_here(self) -> bool:
        """Whether this machine has the provider that the engines in the release need."""
        return engine(self.refiner.kind).is_available(self.refiner.provider)

    def load(self) -> EnginePair:
        """The engines on this machine, as a robot would run them, on one thread."""
        loaded = {name: load_built(built) for name, built in self.by_name.items()}
        return EnginePair(loaded.get("planner"), loaded["refiner"])


def build_engines(job: Job, front: Front, reference: Engines) -> Built:
    """Build both graphs with the target's best engine kind.

    Every form of the refiner is held against `reference` before its speed is looked at. Where the
    target's engines do not run here, the refiner's form is the target's.

    Args:
        job: what to build for; its cache keeps the measurement, so that compiling again decides
            alike, and its samples are what is compared and measured on.
        front: the graphs.
        reference: the policy in PyTorch, with quantised layers where the recipe has them.

    Raises:
        InputError: the form that was asked for does not exist for this policy.
        ParityError: a form is not the policy, or a layer that was to run in integers does not.
    """
    plan, target, cache, samples = job.plan, job.target, job.cache, job.samples
    kind = engine(plan.settings.kind)
    made = programs(front.parts)
    planner = None
    if front.planner is not None:
        planner = _build(front.planner, made["planner"], plan, target, cache)
    wanted = integer_layers(front.precisions, kind.kernels)
    refiners = {
        form: _build(front.refiners[form], made["refiner"], plan, target, cache)
        for form in _forms(front, job.form, target, plan)
    }
    graphs: dict[str, BuiltEngine] = dict(refiners.items())
    if planner is not None:
        graphs["planner"] = planner
    products = {name: kind.products(built) for name, built in graphs.items()}
    for form in refiners:
        # On the robot another engine will run the graph; what this one does says nothing of it.
        if plan.on_device is None:
            both = [*products.get("planner", ()), *products[form]]
            require_integers(wanted, both, kind.kernels)
    if not plan.measurable or kind.from_program:
        (form,) = refiners
        choice = _unmeasured(form, job.form, front, target, plan)
        chosen = (*products.get("planner", ()), *products[form])
        return Built(planner, refiners[form], choice, {}, plan, chosen)
    sessions = {name: load_built(built) for name, built in graphs.items()}
    _require_parity(sessions, reference, samples[:FORM_SAMPLES], job)
    inputs = {name: sha256(built.content) for name, built in graphs.items()}
    measured, _ = cache.get_or_make(
        "measure", inputs, lambda: {"medians_ms": _measure(sessions, samples[0])}
    )
    medians_ms = json.loads(measured["medians_ms"])
    choice = _choose(front, job.form, medians_ms)
    chosen = (*products.get("planner", ()), *products[choice.form])
    return Built(planner, refiners[choice.form], choice, medians_ms, plan, chosen)


def _build(
    model: bytes, program: Program, plan: EnginePlan, target: Target, cache: StageCache
) -> BuiltEngine:
    """One engine; what a compiler made is kept, as its log and its figures belong to its bytes."""
    kind = engine(plan.settings.kind)
    tools = kind.tools()
    if not tools:
        return kind.build(model, plan.settings, target, program)
    made: list[BuiltEngine] = []

    def build() -> dict[str, bytes]:
        made.append(kind.build(model, plan.settings, target, program))
        return {"content": made[0].content, "facts": _to_json(made[0])}

    inputs = {
        "graph": sha256(model),
        "settings": plan.settings.model_dump_json(),
        "compute capability": str(target.compute_capability),
        **tools,
    }
    stored, _ = cache.get_or_make("engine", inputs, build)
    return made[0] if made else _from_json(model, plan, stored)


def _to_json(built: BuiltEngine) -> bytes:
    assert built.compilation is not None
    specs = {name: [vars(s) for s in getattr(built, name)] for name in ("inputs", "outputs")}
    return json.dumps({"compilation": vars(built.compilation), **specs}).encode()


def _from_json(model: bytes, plan: EnginePlan, stored: Mapping[str, bytes]) -> BuiltEngine:
    facts = json.loads(stored["facts"])
    inputs, outputs = (
        tuple(TensorSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in facts[name])
        for name in ("inputs", "outputs")
    )
    settings = plan.settings
    return BuiltEngine(
        settings.kind,
        settings.provider,
        settings.session_options,
        stored["content"],
        inputs,
        outputs,
        graph=model,
        compilation=Compilation(**facts["compilation"]),
    )


def load_built(built: BuiltEngine) -> Session:
    """One engine on this machine, on one thread."""
    return engine(built.kind).load(built.content, built.provider, built.session_options)


def choose_form(medians_ms: Mapping[str, float]) -> Choice:
    """The faster form; Loop unless unrolling gains more than 5 %."""
    if medians_ms["loop"] > medians_ms["unrolled"] * WORTH_UNROLLING:
        return Choice("unrolled", "measured more than 5 % faster than Loop where it was compiled")
    return Choice("loop", "unrolling measured no more than 5 % faster, and Loop is far smaller")


def interleaved_medians(
    calls: Mapping[str, Callable[[], object]], budget_s: float = _BUDGET_S
) -> dict[str, float]:
    """Median wall time of each call in seconds.

    Calls take turns, so that whatever else the machine does meets all of them alike. After two
    rounds of warming up: at least 15 and at most 200 rounds, within about `budget_s`.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(2):
        for call in calls.values():
            call()
    end = time.perf_counter() + budget_s
    for done in range(_MOST_ROUNDS):
        if done >= _LEAST_ROUNDS and time.perf_counter() > end:
            break
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def _forms(front: Front, pinned: Form | None, target: Target, plan: EnginePlan) -> list[Form]:
    """What to build of the refiner: every form only where they can be measured."""
    if not engine(plan.settings.kind).from_program:
        wanted = pinned if plan.measurable else pinned or _preferred(front, target)
        return _candidates(front, wanted)
    if pinned == "loop":
        raise InputError(
            "form-unavailable", f"There is no loop form here: {_PROGRAM}.", "Leave out --form."
        )
    return _candidates(front, "unrolled")


def _candidates(front: Front, pinned: Form | None) -> list[Form]:
    if pinned is None:
        return list(front.refiners)
    if pinned not in front.refiners:
        raise InputError(
            "form-unavailable",
            f"There is no {pinned} form here: {_why_only(front)}.",
            "Leave out --form.",
        )
    return [pinned]


def _preferred(front: Front, target: Target) -> Form:
    only = next(iter(front.refiners))
    return target.refiner_form if target.refiner_form in front.refiners else only


def _why_only(front: Front) -> str:
    """Why there is but one form."""
    (form,) = front.refiners
    if front.parts.tables is None:
        return _ONLY[form] if front.planner else _ONE_PASS
    in_blocks = any(precision.weights == "int4" for precision in front.precisions.values())
    return _ONLY[form] if in_blocks else _HEAVY


def _unmeasured(
    form: Form, pinned: Form | None, front: Front, target: Target, plan: EnginePlan
) -> Choice:
    if engine(plan.settings.kind).from_program:
        return Choice(form, _PROGRAM)
    if pinned is not None or len(front.refiners) == 1:
        return _choose(front, pinned, {})
    return Choice(
        form, f"the default of target {target.name}, whose engines cannot be measured here"
    )


def _choose(front: Front, pinned: Form | None, medians_ms: Mapping[str, float]) -> Choice:
    if pinned is not None:
        return Choice(pinned, "asked for with --form")
    if len(front.refiners) == 1:
        (form,) = front.refiners
        return Choice(form, _why_only(front))
    return choose_form(medians_ms)


def _require_parity(
    sessions: Mapping[str, Session],
    reference: Engines,
    samples: Sequence[Sample],
    job: Job,
) -> None:
    dims = job.checkpoint.config.embodiment.actions
    expected = run_engines(reference, samples)
    for form in sessions.keys() - {"planner"}:
        pair = EnginePair(sessions.get("planner"), sessions[form])
        found = run_engines(pair, samples, expected.intent)
        stage = f"{form} refiner vs PyTorch"
        require_pass(compare(stage, expected, found, dims, job.limits))


def _measure(sessions: Mapping[str, Session], sample: Sample) -> bytes:
    everything: dict[str, Array] = {
        "images": sample.images,
        "state": sample.state,
        "instruction": sample.instruction,
        "noise": sample.noise,
    }
    planner = sessions.get("planner")
    if planner is not None:
        planned = planner.run(_feeds(planner, everything))
        everything["intent"] = planned["intent"][: sample.noise.shape[0]]
    calls: dict[str, Callable[[], object]] = {
        name: partial(session.run, _feeds(session, everything))
        for name, session in sessions.items()
    }
    medians = {name: round(s * 1e3, 4) for name, s in interleaved_medians(calls).items()}
    return json.dumps(medians).encode()


def _feeds(session: Session, everything: Mapping[str, Array]) -> dict[str, Array]:
    return {spec.name: everything[spec.name] for spec in session.inputs}
