"""Configuration of the two networks: semantic planner and action refiner."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from libra_edge.models import Grown
from libra_edge.policy.libra_vla.pretrained.config import (
    BackboneConfig,
    CompactBackboneConfig,
    EyesConfig,
    Size,
)


class PlannerConfig(Grown):
    """Semantic planner: a backbone and the parallel coarse-action head.

    `head_width` None is the backbone's own width.
    """

    later: ClassVar[tuple[str, ...]] = ("head_width",)

    backbone: BackboneConfig = CompactBackboneConfig()
    head_layers: Size = 2
    head_heads: Size = 6
    head_width: Size | None = None

    @property
    def width(self) -> int:
        """Of the head."""
        return self.head_width or self.backbone.width


class RefinerConfig(Grown):
    """Action refiner: own visual encoder and adaLN denoiser with cross-attention.

    `visual_encoder = False` and `PolicyConfig.refiner = None` are the paper's ablations. `eyes` are
    a pretrained visual encoder, in place of the stem of `stem_channels`.
    """

    later: ClassVar[tuple[str, ...]] = ("eyes",)

    visual_encoder: bool = True
    stem_channels: Annotated[tuple[Size, ...], Field(min_length=1, max_length=8)] = (24, 48, 96)
    width: Size = 192
    encoder_layers: Annotated[int, Field(ge=0, le=128)] = 1
    layers: Size = 3
    heads: Size = 6
    eyes: EyesConfig | None = None

    @model_validator(mode="after")
    def _eyes_see(self) -> RefinerConfig:
        if self.eyes is not None and not self.visual_encoder:
            raise ValueError("eyes are for a refiner with a visual_encoder")
        return self
