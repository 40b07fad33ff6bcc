"""Speed is a claim too: medians against bounds, and against what the caller can bear."""

from __future__ import annotations

from dataclasses import replace

from libra_edge.bundle.compatibility import CPU
from libra_edge.bundle.roofline import release_bound
from libra_edge.catalog import list_targets
from libra_edge.limits import Verdict
from libra_edge.parity.gates import Check, not_measured
from libra_edge.verification.claims.held import claim
from libra_edge.verification.details.latency import Latency, measure_latencies
from libra_edge.verification.subject import Subject

STAGE = "speed"


def examine_speed(subject: Subject) -> list[Check]:
    """Time the engines as the C ABI runs them; a quick verification does so only if asked."""
    wanted = subject.request.max_latency_ms
    runtime = subject.runtime()
    if runtime is None:
        return [not_measured(STAGE, "it does not run here")] if wanted is not None else []
    if wanted is None and subject.request.quick:
        return []
    subject.on_stage("latency")
    latencies = measure_latencies(runtime, subject.samples)
    subject.behind = replace(subject.behind, latencies=latencies)
    return [*_asked(subject, latencies, wanted), *_bounds(subject, latencies)]


def _asked(subject: Subject, latencies: tuple[Latency, ...], wanted: float | None) -> list[Check]:
    if wanted is None:
        return []
    times = {latency.name: latency.p50_ms for latency in latencies}
    share = times.get("planner", 0.0) / subject.manifest.policy.chunks_per_plan
    average = share + times["refiner"]
    passed = average <= wanted
    words = ", ".join(f"{name} {ms:.3g} ms" for name, ms in times.items())
    calls = len(latencies[0].calls_ms)
    verdict: Verdict = "pass" if passed else "fail"
    return [Check(STAGE, "median of a chunk, ms", average, wanted, calls, verdict, words)]


def _bounds(subject: Subject, latencies: tuple[Latency, ...]) -> list[Check]:
    """Nothing is faster than its work allows: then the work is another than the manifest says."""
    engines, target = subject.manifest.engines, list_targets().get(subject.manifest.target)
    if target is None or engines.refiner.provider == CPU:
        return []
    bound = release_bound(engines, subject.manifest.policy.chunks_per_plan, target)
    if bound is None:
        return []
    bounds = {"planner": bound.planner, "refiner": bound.refiner}
    pairs = [(one, least) for one in latencies if (least := bounds[one.name]) is not None]
    return [
        claim(
            f"{latency.name} within its bound",
            latency.p50_ms >= least.ms,
            f"{latency.p50_ms:.3g} ms, and {least.ms:.3g} ms at the least for its work",
            STAGE,
        )
        for latency, least in pairs
    ]
