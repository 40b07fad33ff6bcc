"""Counts what a policy costs: operations by number format, weight and activation bytes.

The policy runs once on PyTorch's meta device, so a configuration of any size is counted in seconds
without a weight in memory, and what is counted are the modules that become graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from libra_edge.bundle.engine_facts import Work
from libra_edge.catalog import BITS, HIGH, LayerPrecision, Number, Recipe
from libra_edge.compiler.quantization.assign import (
    Precisions,
    choose_precisions,
    form_under,
    part_rest,
)
from libra_edge.compiler.quantization.fp16 import PARTS
from libra_edge.compiler.work.launches import Launched, Launches
from libra_edge.engines.base import QdqForm
from libra_edge.policy.checkpoint import outline
from libra_edge.policy.config import PolicyConfig
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.policy.libra_vla.split import ContextGraph, PlannerGraph, StepGraph

# A number as stored, with its share of a block's scale.
_BITS: dict[Number, float] = {**BITS, "int4": 4.125, "nvfp4": 4.5}


@dataclass(frozen=True)
class PolicyWork:
    """What each graph of a policy costs per call, and what it holds.

    weight_bytes: of both graphs, each weight once; activation_bytes: of the largest layer's input
    and output; parameters: of the policy in all; planner_launches, refiner_launches: of one call.
    """

    planner: Work
    refiner: Work
    weight_bytes: int
    activation_bytes: int
    parameters: int
    planner_launches: Launched
    refiner_launches: Launched

    @property
    def memory_bytes(self) -> int:
        """What both engines hold at the least."""
        return self.weight_bytes + self.activation_bytes


@dataclass(frozen=True)
class _Call:
    """One call of a layer: multiplications and additions, and numbers of each kind."""

    name: str
    operations: float
    weights: int
    bias: int
    given: int
    made: int


@dataclass(frozen=True)
class _Pass:
    """One run of a graph's module; attention: operations of products without weights."""

    layers: tuple[_Call, ...]
    attention: float
    launches: Launches


@dataclass(frozen=True)
class _Passes:
    """Of a configuration: the planner's run, and the refiner's with how often each is made."""

    policy: LibraVLA
    planner: _Pass
    refiner: tuple[tuple[_Pass, int], ...]


@dataclass
class _Tally:
    """What one pass over a module did. Operations are products; the rest is not counted."""

    operations: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    moved_bytes: float = 0.0
    largest_bytes: float = 0.0

    def add(self, name: str, operations: float) -> None:
        self.operations[name] = self.operations.get(name, 0.0) + operations


def count(
    config: PolicyConfig,
    recipe: Recipe,
    form: QdqForm | None = None,
    precisions: Precisions | None = None,
) -> PolicyWork:
    """Count a policy under a recipe.

    Args:
        config: the policy; nothing of it is loaded.
        recipe: the number formats.
        form: of the engine kind, which decides whether images stems are quantised, and in which
            floats everything else is.
        precisions: what its layers became, where a search kept some; None takes the recipe's.
    """
    form, passes = form_under(recipe, form or QdqForm()), _passes(config.to_json())
    policy = passes.policy
    if precisions is None:
        precisions = choose_precisions(policy, recipe, form)
    rests = {part: part_rest(precisions, form, part) for part in PARTS}
    plan = [(_tallied(passes.planner, rests["planner"], precisions), 1)]
    refine = [(_tallied(one, rests["refiner"], precisions), times) for one, times in passes.refiner]
    held = {name: size for tally, _ in [*plan, *refine] for name, size in tally.weights.items()}
    for part, rest in rests.items():
        held[f"{part}."] = _embeddings(getattr(policy, part)) * _BITS[rest] / 8
    tallies = [tally for tally, _ in [*plan, *refine]]
    return PolicyWork(
        _work(plan),
        _work(refine),
        round(sum(held.values())),
        round(max(tally.largest_bytes for tally in tallies)),
        sum(p.numel() for p in policy.parameters()),
        _launched([(passes.planner, 1)]),
        _launched(passes.refiner),
    )


def _embeddings(part: nn.Module | None) -> int:
    """Parameters of a graph that no product reads: tables of words, positions, norms."""
    if part is None:
        return 0
    inside = {
        id(p)
        for m in part.modules()
        if isinstance(m, nn.Linear | nn.Conv2d)
        for p in m.parameters()
    }
    return sum(p.numel() for p in part.parameters() if id(p) not in inside)


def _launched(passes: Sequence[tuple[_Pass, int]]) -> Launched:
    return Launched(
        sum(times * one.launches.operators for one, times in passes),
        sum(times * one.launches.kernels for one, times in passes),
    )


def _work(passes: list[tuple[_Tally, int]]) -> Work:
    operations: dict[str, float] = {}
    for tally, times in passes:
        for name, value in tally.operations.items():
            operations[name] = operations.get(name, 0.0) + times * value
    # Seven digits: the figures go into the manifest.
    return Work(
        tera_operations={name: float(f"{v / 1e12:.7g}") for name, v in sorted(operations.items())},
        weight_bytes=round(sum(times * sum(t.weights.values()) for t, times in passes)),
        activation_bytes=round(sum(times * t.moved_bytes for t, times in passes)),
    )


@cache
def _passes(config: str) -> _Passes:
    """What each graph of a configuration, as JSON, does: the same under every recipe."""
    read = PolicyConfig.model_validate_json(config)
    policy, args = outline(read), _arguments(read)
    plan = _run(PlannerGraph(policy), policy, (args["images"], args["words"], args["state"]))
    if policy.refiner is None:
        return _Passes(policy, plan, ())
    module = ContextGraph(policy, policy.refiner).eval()
    observed = (args["images"], args["state"], args["intent"])
    context = _run(module, policy, observed)
    with torch.no_grad():
        shared = module(*observed)
    step = _run(StepGraph(policy, policy.refiner), policy, _step_arguments(policy, args, shared))
    return _Passes(policy, plan, ((context, 1), (step, read.schedule.denoise_steps)))


def _run(module: nn.Module, policy: LibraVLA, arguments: tuple[Tensor, ...]) -> _Pass:
    """One pass: products with weights by layer; what is left over is attention."""
    layers: list[_Call] = []
    counter, launches = FlopCounterMode(display=False), Launches()
    with _hooks(policy, layers), launches, counter, torch.no_grad():
        module.eval()(*arguments)
    attention = counter.get_total_flops() - sum(call.operations for call in layers)
    return _Pass(tuple(layers), attention, launches)


@contextmanager
def _hooks(policy: LibraVLA, calls: list[_Call]) -> Iterator[None]:
    handles = []
    for name, layer in policy.named_modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue

        def hook(layer: Any, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            operations = 2.0 * output.numel() * layer.weight[0].numel()
            bias = 0 if layer.bias is None else layer.bias.numel()
            numbers = (layer.weight.numel(), bias, inputs[0].numel(), output.numel())
            calls.append(_Call(name, operations, *numbers))

        handles.append(layer.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _of(name: str, precisions: Precisions) -> LayerPrecision:
    """A convolution belongs to its image stem, which counts as one layer."""
    stem = name.split(".stem.")[0]
    return precisions.get(name, precisions.get(stem, HIGH))


def _tallied(one: _Pass, rest: Number, precisions: Precisions) -> _Tally:
    """What a pass costs in the formats of its layers; attention is in those of the rest."""
    tally = _Tally()
    for call in one.layers:
        precision = _of(call.name, precisions)
        weights: Number = rest if precision.high else precision.weights
        # Weight-only: numbers are turned back into the floats around before the product.
        format_: Number = precision.activations if precision.rounds_inputs else rest
        tally.add(format_, call.operations)
        tally.weights[call.name] = (call.weights * _BITS[weights] + call.bias * _BITS[rest]) / 8
        moved = (call.given * _BITS[format_] + call.made * _BITS[rest]) / 8
        tally.moved_bytes += moved
        tally.largest_bytes = max(tally.largest_bytes, moved)
    tally.add(rest, one.attention)
    return tally


def _arguments(config: PolicyConfig) -> Mapping[str, Tensor]:
    robot = config.embodiment
    images = (config.num_cameras, robot.image_height, robot.image_width, 3)
    with torch.device("meta"):
        return {
            "images": torch.empty(images, dtype=torch.uint8),
            "words": torch.empty(config.instruction_length, dtype=torch.int64),
            "state": torch.empty(config.state_dim),
            "intent": torch.empty(config.chunk, config.action_dim, dtype=torch.int32),
            "x": torch.empty(config.chunk, config.action_dim),
        }


def _step_arguments(
    policy: LibraVLA, args: Mapping[str, Tensor], shared: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    assert policy.refiner is not None
    with torch.device("meta"):
        row = torch.empty(policy.refiner.modulate.out_features)
        coefficients = torch.empty(5)
    previous = (torch.empty_like(args["x"]),) if policy.table.remembers else ()
    return (args["x"], *previous, row, coefficients, *shared)
