"""Bounds of a policy on many targets under many recipes, without building anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from libra_edge.bundle.roofline import PolicyBound, policy_bound
from libra_edge.catalog import Recipe, Target
from libra_edge.compiler.work.count import PolicyWork, count
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
    """One row for each pair, in the order given."""
    work = {recipe.name: count(config, recipe) for recipe in recipes}
    for target in targets:
        for recipe in recipes:
            yield _pair(config, target, recipe, work[recipe.name])


def _pair(config: PolicyConfig, target: Target, recipe: Recipe, work: PolicyWork) -> Estimate:
    memory = work.memory_bytes
    if missing := recipe.needs - set(target.precisions):
        return Estimate(target, recipe, None, memory, f"has no {', '.join(sorted(missing))}")
    if target.memory_bytes is not None and memory > target.memory_bytes:
        return Estimate(target, recipe, None, memory, "does not fit its memory")
    bound = policy_bound(work.planner, work.refiner, config.chunks_per_plan, target)
    return Estimate(target, recipe, bound, memory, "" if bound else "rates are not known")
