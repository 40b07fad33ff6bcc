"""The roofline: how fast a target could run a graph at best, from its rates and the graph's work.

Time is at least the operations over the peak rate of their number format, at least the bytes moved
over the bandwidth, and at least what launching the kernels takes, where their number is known and
the target says what one takes: they run one after the other. Weights count once per pass: in each
denoising step anew, as they do not fit the caches of a policy of real size. What a device really
reaches is slower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from libra_edge.bundle.engine_facts import Engines, Work
from libra_edge.catalog import Target


@dataclass(frozen=True)
class Bound:
    """The least time of one call in milliseconds, and what sets it.

    limit: `compute`, `memory` or `launches`.
    """

    ms: float
    limit: str


@dataclass(frozen=True)
class PolicyBound:
    """Bounds of a policy; average_ms: of one chunk, the planner's share and the refiner.

    planner: None where there is none.
    """

    planner: Bound | None
    refiner: Bound
    average_ms: float


def bound(work: Work, target: Target, kernels: int = 0) -> Bound | None:
    """The bound of one graph; None where the target's profile lacks a rate that it takes.

    Args:
        work: of one call.
        target: the machine.
        kernels: of one call; zero where they were not counted.
    """
    if target.bandwidth_gb_s is None:
        return None
    rates: Mapping[str, float] = {str(name): rate for name, rate in target.peak_tops.items()}
    if not work.tera_operations.keys() <= rates.keys():
        return None
    compute_s = sum(ops / rates[name] for name, ops in work.tera_operations.items())
    memory_s = (work.weight_bytes + work.activation_bytes) / (target.bandwidth_gb_s * 1e9)
    launches_s = kernels * (target.launch_us or 0.0) * 1e-6
    limits = {"compute": compute_s, "memory": memory_s, "launches": launches_s}
    limit = max(limits, key=lambda name: limits[name])
    return Bound(1e3 * limits[limit], limit)


def policy_bound(
    planner: Work | None,
    refiner: Work,
    chunks_per_plan: int,
    target: Target,
    kernels: tuple[int, int] = (0, 0),
) -> PolicyBound | None:
    """The bounds of the graphs there are; None where the target's profile does not give them.

    Args:
        planner: work of one call; None where there is none.
        refiner: work of one call.
        chunks_per_plan: M.
        target: the machine.
        kernels: of one call of planner and refiner.
    """
    fast = bound(refiner, target, kernels[1])
    slow = None if planner is None else bound(planner, target, kernels[0])
    if fast is None or (planner is not None and slow is None):
        return None
    share = 0.0 if slow is None else slow.ms / chunks_per_plan
    return PolicyBound(slow, fast, share + fast.ms)


def release_bound(engines: Engines, chunks_per_plan: int, target: Target) -> PolicyBound | None:
    """The bounds of a release; None where it does not say its work, or the target its rates."""
    works = {name: engine.work for name, engine in engines.by_name.items()}
    refiner = works["refiner"]
    if refiner is None or None in works.values():
        return None
    return policy_bound(works.get("planner"), refiner, chunks_per_plan, target)
