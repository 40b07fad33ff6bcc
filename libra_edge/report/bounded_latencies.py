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
    """Planner, refiner, and what a chunk costs when one plan serves M of them."""
    target, chunks = list_targets().get(manifest.target), manifest.policy.chunks_per_plan
    bounds = release_bound(manifest.engines, chunks, target) if target else None
    medians = {each.name: statistics.median(each.calls_ms) for each in latencies}
    planner, refiner = medians.get("planner"), medians.get("refiner")
    average = None if planner is None or refiner is None else planner / chunks + refiner
    rows = [
        ("planner", bounds.planner.ms if bounds else None, planner),
        ("refiner", bounds.refiner.ms if bounds else None, refiner),
        (f"planner / {chunks} + refiner", bounds.average_ms if bounds else None, average),
    ]
    limits = [bounds.planner.limit, bounds.refiner.limit, None] if bounds else [None] * 3
    return tuple(
        BoundedLatency(what=what, bound_ms=bound_ms, limit=limit, measured_ms=measured_ms)
        for (what, bound_ms, measured_ms), limit in zip(rows, limits, strict=True)
    )
