"""What a verification is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from libra_edge.evaluation.non_inferiority import ClosedLoop
from libra_edge.paths import to_paths
from libra_edge.verification.isolation.child import TIME_LIMIT_S

DEFAULT_SAMPLES, QUICK_SAMPLES = 200, 24
# Not the compiler's seed: a gate is worth more on observations it was not passed on before.
DEFAULT_SEED = 1


@dataclass(frozen=True)
class Request:
    """What to verify, against what, and how much of it.

    Args:
        release: release directory or `.libra` file.
        checkpoint: what it was compiled from; None leaves those comparisons not measured.
        data: LeRobot dataset to take observations from; None makes them up.
        samples: observations per comparison; None takes 200, or 24 if `quick`.
        seed: of the choice of observations, and of the noise.
        golden_only: ask for bytes and golden vectors alone; nothing else counts as missing.
        quick: ask for what needs no compiling, on fewer samples.
        gates: TOML file of limits that replace the recipe's; None takes those.
        allow_loose: take limits that are looser than the recipe's.
        calibrate: what a quantised release was calibrated on, to compile its stages again.
        closed_loop: also run the checkpoint and the release over the same simulated episodes.
        cache: the compiler's cache, and of finished episodes; None takes the user's.
        expect_recipe, expect_target: what it has to be, by name; None takes any.
        expect_checkpoint: the sha256 of what it has to be compiled from, or its first 8 digits.
        max_latency_ms: longest median of a chunk, the planner's share included.
        robot, tokenizer, vlm_config: what a checkpoint of another family may not hold itself.
        reference_python: interpreter of an environment with LeRobot: what it gives for the same
            observations and noise stands first in the chain.
        engines: folder of engines that were built on this machine, to replay the golden vectors on.
        time_limit_s: of each answer of the release's code; then its process is ended.
    """

    release: Path
    checkpoint: Path | None = None
    data: Path | None = None
    samples: int | None = None
    seed: int = DEFAULT_SEED
    golden_only: bool = False
    quick: bool = False
    gates: Path | None = None
    allow_loose: bool = False
    calibrate: Path | None = None
    closed_loop: ClosedLoop | None = None
    cache: Path | None = None
    expect_recipe: str | None = None
    expect_target: str | None = None
    expect_checkpoint: str | None = None
    max_latency_ms: float | None = None
    time_limit_s: float = TIME_LIMIT_S
    robot: Path | None = None
    tokenizer: Path | None = None
    vlm_config: Path | None = None
    reference_python: Path | None = None
    engines: Path | None = None

    def __post_init__(self) -> None:
        to_paths(self)

    @property
    def count(self) -> int:
        """Observations per comparison."""
        return self.samples or (QUICK_SAMPLES if self.quick else DEFAULT_SAMPLES)
