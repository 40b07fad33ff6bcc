"""Latencies next to the roofline of the target, as the report shows them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.roofline import release_bound
from libra_edge.catalog import list_targets
from libra_edge.models import Strict
from libra_edge.verification.details.latency import Latency


class BoundedLatency(Strict):
    """One line of the roofline table.

    bound_ms: the least time on the target, with what sets it (`compute` or `memory`), None where
    the target's profile has no rates or the release does not say its work; measured_ms: the median
    here, None where the release does not run here.
    """

    what: str
    bound_ms: float | None
    limit: str | None
    measured_ms: float | None


def bounded_latencies(
    manifest: Manifest, latencies: Sequence[Latency]
) -> tuple[BoundedLatency, ...]:
    """Planner, refiner, and what a chunk costs when one plan serves M of them.

    Without a planner the refiner alone.
    """
    target, chunks = list_targets().get(manifest.target), manifest.policy.chunks_per_plan
    bounds = release_bound(manifest.engines, chunks, target) if target else None
    medians = {each.name: statistics.median(each.calls_ms) for each in latencies}
    planner, refiner = medians.get("planner"), medians.get("refiner")
    least = {"planner": bounds.planner, "refiner": bounds.refiner} if bounds else {}
    rows: list[tuple[str, float | None, str | None, float | None]] = []
    for name, measured in (("planner", planner), ("refiner", refiner)):
        bound = least.get(name)
        if name in manifest.engines.by_name:
            at_least = (bound.ms, bound.limit) if bound else (None, None)
            rows.append((name, *at_least, measured))
    if len(rows) > 1:
        average = None if planner is None or refiner is None else planner / chunks + refiner
        mean = bounds.average_ms if bounds else None
        rows.append((f"planner / {chunks} + refiner", mean, None, average))
    return tuple(
        BoundedLatency(what=what, bound_ms=bound_ms, limit=limit, measured_ms=measured_ms)
        for what, bound_ms, limit, measured_ms in rows
    )
