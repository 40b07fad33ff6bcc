"""InternVL as the planner's backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from libra_edge.policy.libra_vla.pretrained.build import build
from libra_edge.policy.libra_vla.pretrained.config import InternVlConfig
from libra_edge.policy.libra_vla.pretrained.language import Hidden, Prompt
from libra_edge.policy.libra_vla.pretrained.resize import Normalized, Tiles


class InternVl(nn.Module):
    """Camera bytes, instruction and state to the hidden states of InternVL's language model.

    Args:
        config: the model.
        size: height and width of the cameras' pictures.
        length: T, of an instruction.
        state_dim: P.
    """

    def __init__(
        self, config: InternVlConfig, size: tuple[int, int], length: int, state_dim: int
    ) -> None:
        super().__init__()
        self.width = config.width
        vision, pictures = config.vision, config.pictures
        self.tiles = Tiles(
            size, vision.image_size, config.min_tiles, config.max_tiles, pictures.resample
        )
        self.normalized = Normalized(pictures)
        side = vision.image_size // vision.patch_size // config.shuffle
        cameras = len(config.prompt.before)
        self.prompt = Prompt(
            config.prompt, [(self.tiles.count * side, side)] * cameras, length, axes=1
        )
        self.model: Any = build(config)
        self.state = nn.Linear(state_dim, self.width)

    @property
    def vision(self) -> tuple[nn.Module, ...]:
        """What sees, up to the features that the language model is given in another form."""
        return (self.model.vision_tower,)

    def forward(self, images: Tensor, instruction: Tensor, state: Tensor) -> Hidden:
        """Images uint8 [B, V, h, w, 3], instruction [B, T], normalised state [B, P]."""
        features = self.features(images).unbind(1)
        words = self.model.language_model
        return self.prompt(words, features, instruction, self.state(state))

    def features(self, images: Tensor) -> Tensor:
        """Images uint8 [B, V, h, w, 3] to tokens [B, V, tokens, width]."""
        # Floats before anything moves: TensorRT-RTX takes bytes in this order alone.
        pixels = images.flatten(0, 1).float().permute(0, 3, 1, 2)
        tiles = self.normalized(self.tiles(pixels).flatten(0, 1))
        tower = self.model.vision_tower
        convolution = tower.embeddings.patch_embeddings.projection
        x = convolution(tiles.to(convolution.weight.dtype)).flatten(2).transpose(1, 2)
        first = tower.embeddings.cls_token.expand(len(x), -1, -1)
        x = torch.cat([first, x], dim=1) + tower.embeddings.position_embeddings
        for layer in tower.encoder.layer:
            x = layer(x)
        x = tower.layernorm(x)[:, 1:]
        side = round(x.shape[1] ** 0.5)
        square = x.unflatten(1, (side, side))
        merged = self.model.pixel_shuffle(square, self.model.config.downsample_ratio)
        tokens: Tensor = self.model.multi_modal_projector(merged.flatten(1, 2))
        # All tiles of a camera are one picture to the language model.
        return tokens.unflatten(0, (*images.shape[:2], -1)).flatten(2, 3)
