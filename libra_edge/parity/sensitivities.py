"""What quantising each layer alone does, as the build measured it, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class LayerSensitivity(BaseModel):
    """What quantising one layer alone did where the release was compiled.

    gate_used: the largest share of a parity gate that it uses up; tokens: share of equal tokens;
    action: p99 action error as a share of the range; kept: it stays in high precision.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer: str
    gate_used: float
    tokens: float
    action: float
    kept: bool


def read_sensitivities(build: Mapping[str, Any] | None) -> tuple[LayerSensitivity, ...]:
    """The search's measurements of each layer alone, the worst first, where the build made them."""
    if build is None:
        return ()
    kept = {row["layer"] for row in build.get("kept", [])}
    found = [
        LayerSensitivity(
            layer=row["layer"],
            gate_used=row["gate_used"],
            tokens=row["effect"]["tokens"],
            action=row["effect"]["action"],
            kept=row["layer"] in kept,
        )
        for row in build.get("sensitivity", [])
    ]
    return tuple(sorted(found, key=lambda one: (-one.gate_used, one.layer)))
