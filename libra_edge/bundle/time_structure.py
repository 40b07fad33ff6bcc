"""What execution has to know of a release, as its manifest says it."""

from __future__ import annotations

from dataclasses import dataclass

from libra_edge.bundle.manifest import Manifest
from libra_edge.policy.config import Embodiment


@dataclass(frozen=True)
class ReleaseContract:
    """`libra_edge.policy.time_structure.TimeStructure` of a release."""

    embodiment: Embodiment
    bins: int
    chunk: int
    chunks_per_plan: int
    plan_steps: int
    instruction_length: int
    plans: bool
    rows: int
    observation_steps: int
    noise_shape: tuple[int, ...]


def contract_of(manifest: Manifest) -> ReleaseContract:
    """Sizes as the manifest says them; noise as the refiner takes it."""
    policy, inputs = manifest.policy, manifest.engines.refiner.inputs
    noise = [spec.shape for spec in inputs if spec.name == "noise"]
    return ReleaseContract(
        manifest.embodiment,
        policy.bins,
        policy.chunk,
        policy.chunks_per_plan,
        policy.plan_steps,
        policy.instruction_length,
        policy.plans,
        policy.rows,
        policy.observation_steps,
        noise[0] if noise else (0,),
    )
