"""Vision-language backbones of the planner: one class per `kind` in the configuration.

A backbone maps (images uint8 [B, V, h, w, 3], instruction int64 [B, T], normalised state
float [B, P]) to hidden states float [B, S, width] and says its `width`. Pretrained ones also give
what is added to the scores of each hidden state, [B, S]: their padding is masked.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import cast

import torch
from torch import Tensor, nn

from libra_edge.errors import InputError
from libra_edge.policy.config import PolicyConfig
from libra_edge.policy.libra_vla.layers import EncoderBlock, ImageTokens
from libra_edge.policy.libra_vla.pretrained.config import CompactBackboneConfig


class CompactBackbone(nn.Module):
    """Image tokens, word embeddings and one state token through a small transformer encoder."""

    def __init__(self, config: PolicyConfig, backbone: CompactBackboneConfig) -> None:
        super().__init__()
        robot = config.embodiment
        self.width = backbone.width
        self.images = ImageTokens(
            backbone.stem_channels,
            self.width,
            config.num_cameras,
            robot.image_height,
            robot.image_width,
        )
        self.words = nn.Embedding(config.vocabulary, self.width)
        self.word_position = nn.Parameter(torch.randn(config.instruction_length, self.width) * 0.02)
        self.state = nn.Linear(config.state_dim, self.width)
        self.blocks = nn.ModuleList(
            EncoderBlock(self.width, backbone.heads) for _ in range(backbone.layers)
        )
        self.norm = nn.LayerNorm(self.width)

    def forward(self, images: Tensor, instruction: Tensor, state: Tensor) -> Tensor:
        """See the module's docstring."""
        words = self.words(instruction) + self.word_position
        x = torch.cat([self.images(images), words, self.state(state)[:, None]], dim=1)
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed


# Imported when they are asked for: transformers takes seconds.
_PRETRAINED = {"internvl": "InternVl", "qwen2_5_vl": "QwenVl"}


def pretrained(module: str) -> ModuleType:
    """A module of the room of pretrained models.

    Raises:
        InputError: transformers is not installed.
    """
    try:
        return importlib.import_module(f"{__package__}.pretrained.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "transformers":
            raise
        raise InputError(
            "extra-missing",
            "A policy on a pretrained model needs the Python package transformers, which is not "
            "installed.",
            "Install it with: pip install 'libra-edge[compile]'.",
        ) from error


def make_backbone(config: PolicyConfig) -> nn.Module:
    """The backbone that `config.planner.backbone.kind` names."""
    backbone, robot = config.planner.backbone, config.embodiment
    if isinstance(backbone, CompactBackboneConfig):
        return CompactBackbone(config, backbone)
    room = pretrained(backbone.kind)
    size = (robot.image_height, robot.image_width)
    make = getattr(room, _PRETRAINED[backbone.kind])
    return cast(nn.Module, make(backbone, size, config.instruction_length, config.state_dim))
