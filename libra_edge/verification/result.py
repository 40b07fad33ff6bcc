"""What a verification ends with."""

from __future__ import annotations

from dataclasses import dataclass

from libra_edge.bundle.manifest import Manifest
from libra_edge.errors import ExitCode
from libra_edge.limits import ChangedLimit, Verdict
from libra_edge.parity.gates import Check
from libra_edge.verification.details.differences import (
    DenoisingDetail,
    PlannerDetail,
    RefinerDetail,
)
from libra_edge.verification.details.latency import Latency
from libra_edge.verification.details.smoothness import TrajectoryDetail
from libra_edge.verification.request import DEFAULT_SEED


@dataclass(frozen=True)
class Behind:
    """What lies behind the checks: end-to-end differences and latencies, where measured."""

    planner: PlannerDetail | None = None
    refiner: RefinerDetail | None = None
    denoising: DenoisingDetail | None = None
    trajectory: TrajectoryDetail | None = None
    latencies: tuple[Latency, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Plain data; None where nothing was measured."""
        details = (self.planner, self.refiner, self.denoising, self.trajectory)
        names = ("planner", "refiner", "denoising", "trajectory")
        return {
            name: detail and detail.model_dump(mode="json")
            for name, detail in zip(names, details, strict=True)
        } | {"latencies": [latency.model_dump(mode="json") for latency in self.latencies]}


@dataclass(frozen=True)
class Verification:
    """Every check that was asked for, measured or not.

    gates: limits that are not the recipe's; judged_by: the recipe whose limits were the default;
    left_out: what was not asked for, and is no gap; unchecked: claims of the manifest that nothing
    here could recompute; power: what so many observations can miss, in a sentence; quick: a smaller
    set of checks, which no release should be gated by; samples: observations used, of `seed`.
    """

    manifest: Manifest
    checks: tuple[Check, ...]
    behind: Behind = Behind()
    gates: tuple[ChangedLimit, ...] = ()
    left_out: tuple[str, ...] = ()
    quick: bool = False
    samples: int = 0
    seed: int = DEFAULT_SEED
    unchecked: tuple[str, ...] = ()
    judged_by: str = ""
    power: str = ""

    def count(self, verdict: Verdict) -> int:
        """How many checks ended with this verdict."""
        return sum(check.verdict == verdict for check in self.checks)

    @property
    def exit_code(self) -> ExitCode:
        """A failure counts before a gap, a gap before success."""
        if self.count("fail"):
            return ExitCode.PARITY
        return ExitCode.NOT_MEASURED if self.count("not measured") else ExitCode.OK


def power_of(samples: int) -> str:
    """What so many observations can miss, in a sentence; empty for none."""
    if samples < 1:
        return ""
    escapes = 0.99**samples
    return (
        f"with {samples} observations, a fault in 1 of 100 frames escapes with probability "
        f"{escapes:.2g}"
    )
