"""SigLIP or DINOv2 as the refiner's eyes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from libra_edge.policy.libra_vla.pretrained.build import build
from libra_edge.policy.libra_vla.pretrained.config import EyesConfig
from libra_edge.policy.libra_vla.pretrained.resize import Normalized, Resize
from libra_edge.policy.libra_vla.pretrained.sizes import short_side


class Eyes(nn.Module):
    """Camera bytes to tokens of the refiner's width: one for each patch of each picture.

    Args:
        config: the encoder.
        cameras: V.
        size: height and width of the cameras' pictures.
        width: of the tokens.
    """

    def __init__(self, config: EyesConfig, cameras: int, size: tuple[int, int], width: int) -> None:
        super().__init__()
        square = (config.image_size, config.image_size)
        edge = config.shortest_edge
        resized = square if edge is None else short_side(size, edge)
        self.resize = Resize(size, resized, config.pictures.resample, crop=square)
        self.normalized = Normalized(config.pictures)
        self.kind = config.kind
        self.model: Any = build(config)
        self.project = nn.Linear(config.hidden_size, width)
        self.norm = nn.LayerNorm(width)
        self.camera = nn.Parameter(torch.randn(cameras, 1, width) * 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 [B, V, h, w, 3] → tokens float [B, V * patches, width]."""
        pixels = images.flatten(0, 1).float().permute(0, 3, 1, 2)
        features = self.features(self.normalized(self.resize(pixels)))
        tokens = self.norm(self.project(features)).unflatten(0, images.shape[:2]) + self.camera
        return tokens.flatten(1, 2)

    def features(self, pictures: Tensor) -> Tensor:
        """Normalised pictures [N, 3, side, side] to the encoder's own features of their patches."""
        embeddings = self.model.embeddings
        features: Tensor
        if self.kind == "siglip":
            x = _patches(embeddings.patch_embedding, pictures)
            x = x + embeddings.position_embedding.weight
            for layer in self.model.encoder.layers:
                x = layer(x, attention_mask=None)
            features = self.model.post_layernorm(x)
        else:
            x = _patches(embeddings.patch_embeddings.projection, pictures)
            first = embeddings.cls_token.expand(len(x), -1, -1)
            x = torch.cat([first, x], dim=1) + embeddings.position_embeddings
            for layer in self.model.encoder.layer:
                x = layer(x)
            features = self.model.layernorm(x)[:, 1:]
        return features


def _patches(convolution: nn.Conv2d, pictures: Tensor) -> Tensor:
    return convolution(pictures.to(convolution.weight.dtype)).flatten(2).transpose(1, 2)
