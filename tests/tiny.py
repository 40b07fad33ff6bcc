"""A Libra-VLA small enough to train, export and compile in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from libra_edge.policy.checkpoint import Statistics, build_policy, save_checkpoint
from libra_edge.policy.config import ActionDim, Embodiment, PolicyConfig, StateDim
from libra_edge.policy.tokenizer import word_tokenizer

INSTRUCTIONS = ("open the faucet", "close the faucet", "press the button")


def tiny_embodiment() -> Embodiment:
    """Two 16 x 24 pixel cameras, three state and three action dimensions of every kind."""
    return Embodiment(
        name="tiny",
        control_hz=50.0,
        cameras=("front", "wrist"),
        image_height=16,
        image_width=24,
        state=tuple(StateDim(name=n, unit="m") for n in ("x", "y", "z")),
        actions=(
            ActionDim(name="dx", unit="m", kind="delta", lower=-0.5, upper=0.5),
            ActionDim(name="q", unit="rad", kind="absolute", lower=-2.0, upper=2.0),
            ActionDim(name="grip", unit="1", kind="gripper", lower=0.0, upper=1.0),
        ),
    )


def tiny_config(**changes: Any) -> PolicyConfig:
    """A valid policy of about 20 k parameters; keyword arguments replace top-level keys."""
    content: dict[str, Any] = {
        "embodiment": tiny_embodiment().model_dump(),
        "bins": 10,
        "chunk": 3,
        "chunks_per_plan": 2,
        "instruction_length": 5,
        "vocabulary": 8,
        "planner": {
            "backbone": {"stem_channels": [4, 8], "width": 16, "layers": 1, "heads": 2},
            "head_layers": 1,
            "head_heads": 2,
        },
        "refiner": {
            "stem_channels": [4, 8],
            "width": 16,
            "encoder_layers": 1,
            "layers": 2,
            "heads": 2,
        },
        "schedule": {"denoise_steps": 4},
    }
    return PolicyConfig.model_validate(content | changes)


def tiny_statistics() -> Statistics:
    """Statistics with another offset and scale in every dimension."""
    return {
        "observation.state": {"mean": [0.1, -0.2, 0.3], "std": [0.5, 1.0, 2.0]},
        "action": {
            "q01": [-0.4, -1.5, 0.0],
            "q99": [0.5, 1.0, 1.0],
            "min": [-0.5, -2.0, 0.0],
            "max": [0.5, 2.0, 1.0],
            "mean": [0.0, -0.2, 0.5],
            "std": [0.2, 0.7, 0.4],
        },
    }


def write_tiny_checkpoint(path: Path, seed: int = 0, **changes: Any) -> Path:
    """A checkpoint folder with random weights, none of them zero."""
    torch.manual_seed(seed)
    policy = build_policy(tiny_config(**changes), tiny_statistics())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_checkpoint(path, policy, tiny_statistics(), word_tokenizer(INSTRUCTIONS).to_str())
    return path
