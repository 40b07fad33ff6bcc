"""How smooth executed actions were, as `verify` shows it."""

from __future__ import annotations

from libra_edge.verification.details.differences import Interval
from libra_edge.verification.details.smoothness import TrajectoryDetail

from ._render import Output


def trajectory_table(output: Output, found: TrajectoryDetail) -> None:
    """How smooth the executed actions were, and by how much async and M change that."""
    output.table(
        (
            f"trajectory ({found.episodes} episodes)",
            "jerk, range/s3",
            "curvature, rad/range",
            "held",
        ),
        [
            (
                f"{run.engines}, {run.mode}, M = {run.chunks_per_plan}",
                f"{run.jerk.value:.4g}{_change(run.jerk_change)}",
                f"{run.curvature.value:.4g}{_change(run.curvature_change)}",
                f"{run.held_steps} of {found.steps}",
            )
            for run in found.runs
        ],
    )
    output.text("")


def _change(change: Interval | None) -> str:
    if change is None:
        return ""
    return f" ({change.value:+.1%}, 95 % {change.low:+.1%} to {change.high:+.1%})"
