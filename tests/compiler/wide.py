"""A tiny policy wide enough for blocks of 4-bit weights, and what compiling it takes."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import tiny_config, write_tiny_checkpoint


def write_wide_checkpoint(path: Path) -> Path:
    """`write_tiny_checkpoint` with two blocks of 32 inputs and more."""
    content = tiny_config().model_dump()
    backbone = {**content["planner"]["backbone"], "width": 64}
    wide = {
        "planner": {**content["planner"], "backbone": backbone},
        "refiner": {**content["refiner"], "width": 64, "layers": 1},
    }
    return write_tiny_checkpoint(path, **wide)
