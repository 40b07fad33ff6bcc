"""A made-up record with something in every section of the page, and names of awkward lengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.members import MEMBERS
from libra_edge.evaluation.non_inferiority import PairedTask
from libra_edge.limits import ChangedLimit, overall
from libra_edge.parity.gates import Check, Outputs, not_measured
from libra_edge.parity.samples import Sample
from libra_edge.policy.config import ActionDim
from libra_edge.report.bounded_latencies import bounded_latencies
from libra_edge.report.record import Report
from libra_edge.report.report import check_facts
from libra_edge.report.sensitivities import LayerSensitivity
from libra_edge.verification.details.differences import (
    DenoisingDetail,
    Interval,
    StepError,
    planner_detail,
    refiner_detail,
)
from libra_edge.verification.details.latency import Latency
from libra_edge.verification.details.smoothness import TrajectoryDetail, TrajectoryRun
from tests.bundle.examples import facts_body

DIMS = tuple(
    ActionDim(name=name, unit="rad", kind="absolute", lower=-2.0, upper=2.0)
    for name in ("shoulder_pitch", "shoulder_roll", "elbow", "wrist_yaw", "gripper")
)
_PARTS = ("planner.backbone.blocks", "planner.blocks", "refiner.encoder", "refiner.blocks")
_LAYERS = ("self_attention.key_value", "self_attention.output", "mlp.0", "mlp.2")


def manifest(**changes: Any) -> Manifest:
    """Of a release in several precisions, for a target whose rates are known."""
    body = facts_body("a-release-with-quite-a-long-name-for-a-phone")
    work = {"tera_operations": {"int8": 0.2}, "weight_bytes": 2e9, "activation_bytes": 1e6}
    for engine in body["engines"].values():
        engine["work"] = {**work, "weight_bytes": int(work["weight_bytes"])}
        engine["work"]["activation_bytes"] = 10**6
    body |= {
        "target": "jetson-agx-orin",
        "layers": [
            _layer(f"{part}.{i}.{name}", number)
            for part in _PARTS
            for i in range(3)
            for number, name in enumerate(_LAYERS)
        ],
        "members": {
            name: {"sha256": "ab" * 32, "size_bytes": 1000 * (i + 1)}
            for i, name in enumerate(sorted(MEMBERS))
        },
    }
    return Manifest.model_validate(body | changes)


def _layer(name: str, number: int) -> dict[str, Any]:
    precision = ("int8", "int8", "fp32", "int4 weights, fp32 activations")[number]
    kernel = "DynamicQuantizeMatMul"
    runs = 4 if name.startswith("refiner.blocks") else 1
    return {
        "name": name,
        "kernel": kernel,
        "precision": precision,
        "weight_bytes": 40_000,
        "runs": runs,
    }


def _interval(value: float) -> Interval:
    return Interval(value=value, low=0.9 * value, high=1.1 * value)


def _denoising() -> DenoisingDetail:
    steps = tuple(
        StepError(step=i, mean=_interval(error / 9), p99=error / 1.1, max=error)
        for i, error in enumerate((0.1, 0.03, 0.004))
    )
    return DenoisingDetail(samples=30, seed=0, runs_in="CPUExecutionProvider", steps=steps)


def _trajectory() -> TrajectoryDetail:
    def run(engines: Any, mode: Any, change: float | None) -> TrajectoryRun:
        changed = None if change is None else _interval(change)
        return TrajectoryRun(
            engines=engines,
            mode=mode,
            chunks_per_plan=3,
            jerk=_interval(1234.5),
            curvature=_interval(7.7),
            jerk_change=changed,
            curvature_change=changed,
            held_steps=0,
        )

    return TrajectoryDetail(
        episodes=12,
        steps=600,
        control_hz=80.0,
        seed=0,
        planner_delay_steps=2,
        refiner_delay_steps=1,
        runs=(
            run("release", "sync", None),
            run("release", "async", 0.08),
            run("policy", "sync", 0.01),
        ),
    )


def record(bins: int = 10, **changes: Any) -> Report:
    """The whole record; keyword arguments replace its fields."""
    random = np.random.default_rng(0)
    intent = random.integers(0, bins, (30, 6, len(DIMS))).astype(np.int32)
    other = np.where(random.random(intent.shape) < 0.02, (intent + 1) % bins, intent)
    margin = random.random(intent.shape).astype(np.float32)
    actions = random.uniform(-1, 1, (30, 2, len(DIMS))).astype(np.float32)
    noisy = actions + random.normal(0, 0.01, actions.shape).astype(np.float32)
    reference = Outputs(intent, margin, actions, intent[:, :2])
    candidate = Outputs(other, margin, noisy, intent[:, :2])
    nothing = np.zeros((2, len(DIMS)), np.float32)
    origin = "dataset/with/a/long/path/episode_000123/frame_000456"
    samples = [Sample(nothing, nothing, nothing, nothing, 0, origin)] * 30
    checks = [
        Check("C ABI vs policy, end to end", "tokens equal", 0.98, 0.999, 30, "fail", "18 differ"),
        Check("engine vs fused", "action error / range", 1e-6, 1e-4, 30, "pass", "p50 1.0e-07"),
        not_measured("closed loop, release vs checkpoint", "no simulator here"),
    ]
    latencies = (
        Latency(name="planner", calls_ms=tuple(random.gamma(9, 2, 60))),
        Latency(name="refiner", calls_ms=tuple(random.gamma(9, 3, 60))),
    )
    of = manifest()
    report = Report(
        verdict=overall(check.verdict for check in checks),
        release_id=of.release_id,
        manifest=of.model_dump(mode="json"),
        checks=check_facts(checks),
        gates=(ChangedLimit(name="tokens", limit=0.9, default=0.98, loose=True),),
        left_out=("latency",),
        quick=True,
        planner=planner_detail(reference, candidate, bins, DIMS, 0),
        refiner=refiner_detail(reference, candidate, samples, DIMS, 0),
        denoising=_denoising(),
        trajectory=_trajectory(),
        latencies=latencies,
        roofline=bounded_latencies(of, latencies),
        sensitivity=tuple(
            LayerSensitivity(
                layer=layer.name, gate_used=1.2 / (i + 1), tokens=0.99, action=0.01, kept=i < 2
            )
            for i, layer in enumerate(of.layers)
        ),
        closed_loop=(
            PairedTask(task="faucet-open", both=18, only_checkpoint=2, only_release=0, neither=1),
            PairedTask(task="drawer-open", both=19, only_checkpoint=0, only_release=1, neither=1),
        ),
        machine="a machine",
        samples=30,
        seed=1,
        data="dataset heldout",
    )
    return report.model_copy(update=changes)
