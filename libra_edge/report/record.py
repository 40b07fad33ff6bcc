"""The form of `report.json`: plain, versioned facts without a line of computing.

Nothing here imports torch, so that a release can be verified where there is none.
"""

from __future__ import annotations

from typing import Any, Literal

from libra_edge.bundle.manifest import canonical_json
from libra_edge.evaluation.non_inferiority import PairedTask
from libra_edge.limits import ChangedLimit, Verdict
from libra_edge.models import Strict
from libra_edge.report.bounded_latencies import BoundedLatency
from libra_edge.report.sensitivities import LayerSensitivity
from libra_edge.verification.details.differences import (
    DenoisingDetail,
    PlannerDetail,
    RefinerDetail,
)
from libra_edge.verification.details.latency import Latency
from libra_edge.verification.details.smoothness import TrajectoryDetail


class CheckFacts(Strict):
    """One comparison; `value` and `threshold` are null where nothing could be measured."""

    stage: str
    metric: str
    value: float | None
    threshold: float | None
    samples: int
    verdict: Verdict
    note: str


class Report(Strict):
    """Everything a person or a CI needs to decide on a release.

    gates: limits of this verification that are not the recipe's; left_out: what was not asked for;
    unchecked: claims of the manifest that nothing could recompute; judged_by: the recipe whose
    gates were the default; power: what so many observations can miss;
    quick: fewer checks than a release should be gated by; planner, refiner: release against
    checkpoint, end to end, where measured; denoising: the same step by step; trajectory: how smooth
    recorded episodes are driven; latencies: empty where the release's runtime does not run;
    roofline: medians next to the target's bounds; sensitivity: what each layer does alone, where
    the build searched for layers to keep; closed_loop: paired episodes by task, where they were
    run; machine: what it was measured on.
    """

    schema_version: Literal[1] = 1
    verdict: Verdict
    release_id: str
    manifest: dict[str, Any]
    checks: tuple[CheckFacts, ...]
    gates: tuple[ChangedLimit, ...]
    left_out: tuple[str, ...]
    unchecked: tuple[str, ...] = ()
    judged_by: str = ""
    power: str = ""
    quick: bool
    planner: PlannerDetail | None
    refiner: RefinerDetail | None
    denoising: DenoisingDetail | None
    trajectory: TrajectoryDetail | None
    latencies: tuple[Latency, ...]
    roofline: tuple[BoundedLatency, ...]
    sensitivity: tuple[LayerSensitivity, ...]
    closed_loop: tuple[PairedTask, ...]
    machine: str
    samples: int
    seed: int
    data: str

    def to_json(self) -> bytes:
        """`report.json`."""
        return canonical_json(self.model_dump(mode="json"))

    def count(self, verdict: Verdict) -> int:
        """How many checks ended with this verdict."""
        return sum(check.verdict == verdict for check in self.checks)

    @property
    def loose(self) -> list[str]:
        """Gates looser than the recipe's, when compiled and here, in words."""
        compiled = [ChangedLimit.model_validate(one) for one in self.manifest.get("gates", [])]
        return [
            f"{where}: {one}"
            for where, changes in (("compiled", compiled), ("verified", self.gates))
            for one in changes
            if one.loose
        ]


def json_schema() -> dict[str, Any]:
    """The JSON schema of `report.json`."""
    schema = Report.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
