"""Compile a policy that no ONNX file can hold, nor memory more than once.

Its weights are drawn as 16-bit floats, so there never are 32-bit ones. They go into a file per
graph, then out of memory, and only then engines are built, each in a process of its own. Nothing
of it is cached: it would push out everything else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from libra_edge.catalog import Recipe, Target
from libra_edge.compiler.engines.build import Built, Choice
from libra_edge.compiler.engines.plan import EnginePlan
from libra_edge.compiler.graphs.export import LARGEST_WEIGHTS_BYTES, to_bytes
from libra_edge.compiler.graphs.external_weights import export_apart
from libra_edge.compiler.graphs.fuse import Form, fuse
from libra_edge.compiler.graphs.make_graphs import OnStage
from libra_edge.compiler.quantization.fp16 import halve_in_place
from libra_edge.compiler.request import Job
from libra_edge.engines import engine
from libra_edge.engines.base import BuiltEngine
from libra_edge.engines.session import EnginePair, open_graph
from libra_edge.errors import InputError
from libra_edge.evaluation.half import products_of
from libra_edge.evaluation.torch_controller import TorchEngines
from libra_edge.parity.gates import (
    FUSED,
    POLICY,
    Check,
    compare,
    require_pass,
    run_engines,
)
from libra_edge.parity.golden import members_of
from libra_edge.policy.config import PolicyConfig
from libra_edge.policy.family import Parts
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.policy.libra_vla.planner import Planner
from libra_edge.policy.libra_vla.split import split

# Each takes a minute in PyTorch and another in ONNX Runtime.
SAMPLES = 2
GRAPHS = ("planner", "refiner")
_HALF_BYTES = 2


@dataclass(frozen=True)
class Large:
    """Engines in files, the golden vectors, and what was checked."""

    built: Built
    golden: dict[str, bytes]
    checks: list[Check]


def is_large(config: PolicyConfig) -> bool:
    """Whether the planner's weights, as 16-bit floats, are too many for one ONNX file."""
    return planner_bytes(config) > LARGEST_WEIGHTS_BYTES


def planner_bytes(config: PolicyConfig) -> int:
    """Of its weights as 16-bit floats; nothing is allocated."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in Planner(config).parameters()) * _HALF_BYTES


def require_drawn(config: PolicyConfig, recipe: Recipe, plan: EnginePlan, *, random: bool) -> None:
    """Refuse a large policy where it cannot be compiled, before anything is drawn or read.

    Raises:
        InputError: it is trained, quantised, without a refiner, or for engines that are made of
            one ONNX file.
    """
    kind, gib = plan.settings.kind, planner_bytes(config) / 2**30
    if not random or config.refiner is None:
        raise InputError(
            "model-too-large",
            f"The planner has {gib:.1f} GiB of weights in 16 bits; one ONNX file holds less than "
            "2 GiB.",
            "Compile a smaller backbone.",
        )
    if not engine(kind).from_files:
        raise InputError(
            "model-too-large",
            f"The planner has {gib:.1f} GiB of weights in 16 bits, and {kind} engines are made of "
            "one ONNX file, which holds less than 2 GiB.",
            "Compile it for a target whose engines are built here, for example rtx4090.",
        )
    if recipe.precision != "fp16":
        raise InputError(
            "large-policy-recipe",
            f"A planner of {gib:.1f} GiB is drawn in 16-bit floats; recipe {recipe.name!r} is not.",
            "Choose --recipe fp16.",
        )


def compile_large(job: Job, folder: Path, on_stage: OnStage) -> Large:
    """Draw nothing twice, keep nothing longer than needed. Empties the checkpoint's policy.

    Args:
        job: of a checkpoint drawn in 16-bit floats, for engines of a kind that builds from files;
            its samples are also the golden vectors.
        folder: an empty one, for the graphs and engines.
        on_stage: called with each stage's name and what is going on.

    Raises:
        ParityError: the graphs are not the policy.
        IncompatibleError: the compiler does not take a graph.
    """
    checkpoint, plan, target = job.libra, job.plan, job.target
    policy = halve_in_place(checkpoint.policy)
    first = [replace(sample, part=0) for sample in job.samples]
    with torch.no_grad(), products_of(policy):
        on_stage("split", "policy into graphs")
        parts = split(policy)
        on_stage("check", POLICY)
        outputs = run_engines(TorchEngines(policy), first)
    form: Form = job.form or target.refiner_form
    graphs = _write_graphs(parts, policy, form, folder, on_stage)
    on_stage("check", f"{FUSED} vs {POLICY}")
    pair = EnginePair(*(open_graph(folder / f"{name}.onnx") for name in GRAPHS))
    found = run_engines(pair, first, outputs.intent)
    dims = checkpoint.config.embodiment.actions
    checks = compare(f"{FUSED} vs {POLICY}", outputs, found, dims, job.limits)
    require_pass(checks)
    del pair
    planner, refiner = (
        _build(name, graphs[name], plan, target, folder, on_stage) for name in GRAPHS
    )
    kind = engine(plan.settings.kind)
    asked = "asked for with --form"
    default = f"the default of target {target.name}, whose engines cannot be measured here"
    choice = Choice(form, default if job.form is None else asked)
    products = (*kind.products(planner), *kind.products(refiner))
    built = Built(planner, refiner, choice, {}, plan, products)
    return Large(built, members_of(first, outputs), checks)


def _write_graphs(
    parts: Parts, policy: LibraVLA, form: Form, folder: Path, on_stage: OnStage
) -> dict[str, bytes]:
    """Graphs and their weights in files; each part of the policy is dropped once it is written."""
    assert parts.context is not None
    assert parts.step is not None
    assert parts.tables is not None
    on_stage("export", "planner")
    graphs = {}
    if parts.planner is not None:
        graphs["planner"] = export_apart(parts.planner, folder / "planner.data")
    _free(policy.planner)
    weights = folder / "refiner.data"
    on_stage("export", "context, step")
    context, step = (export_apart(graph, weights) for graph in (parts.context, parts.step))
    _free(policy)
    on_stage("fuse", "denoising steps into one graph")
    graphs["refiner"] = fuse(context, step, parts.tables, form)
    contents = {name: to_bytes(graph) for name, graph in graphs.items()}
    for name, content in contents.items():
        (folder / f"{name}.onnx").write_bytes(content)
    return contents


def _free(module: nn.Module) -> None:
    """Give the weights' memory back, whoever still refers to them: the exporter's caches do."""
    for parameter in module.parameters():
        parameter.data = torch.empty(0)


def _build(
    name: str, graph: bytes, plan: EnginePlan, target: Target, folder: Path, on_stage: OnStage
) -> BuiltEngine:
    on_stage("build", f"{plan.settings.kind} {name}")
    kind = engine(plan.settings.kind)
    data, result = folder / f"{name}.data", folder / f"{name}.engine"
    return kind.build_from_files(graph, data, result, plan.settings, target)
