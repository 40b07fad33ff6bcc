"""Bounds of a policy on many targets under many recipes, without building anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from libra_edge.bundle.roofline import PolicyBound, policy_bound
from libra_edge.catalog import Recipe, Target
from libra_edge.compiler.work.count import PolicyWork, count
from libra_edge.engines import engine
from libra_edge.engines.base import QdqForm
from libra_edge.policy.config import PolicyConfig


@dataclass(frozen=True)
class Estimate:
    """One pair. `bound` is None where `why` says so; memory_bytes: of both engines at the least."""

    target: Target
    recipe: Recipe
    bound: PolicyBound | None
    memory_bytes: int
    why: str = ""


def estimate(
    config: PolicyConfig, targets: Sequence[Target], recipes: Sequence[Recipe]
) -> Iterator[Estimate]:
    """One row for each pair, in the order given; each target's in the form of its best engines."""
    counted: dict[tuple[str, QdqForm], PolicyWork] = {}
    for target in targets:
        form = engine(target.engines[0].kind).qdq
        for recipe in recipes:
            key = recipe.name, form
            if key not in counted:
                counted[key] = count(config, recipe, form)
            yield pair_bound(config, target, recipe, counted[key])


def pair_bound(config: PolicyConfig, target: Target, recipe: Recipe, work: PolicyWork) -> Estimate:
    """The bound of one pair, from what was counted for it."""
    memory = work.memory_bytes
    if missing := recipe.needs - set(target.precisions):
        return Estimate(target, recipe, None, memory, f"has no {', '.join(sorted(missing))}")
    if target.memory_bytes is not None and memory > target.memory_bytes:
        return Estimate(target, recipe, None, memory, "does not fit its memory")
    kernels = work.planner_launches.kernels, work.refiner_launches.kernels
    bound = policy_bound(work.planner, work.refiner, config.chunks_per_plan, target, kernels)
    return Estimate(target, recipe, bound, memory, "" if bound else "rates are not known")
