"""The action refiner (System 1): a conditional denoiser with its own visual encoder.

The forward pass is written in the parts that a compiler fuses: `encode` and `context` run once
per chunk, `modulation` depends on the time step alone, `denoise` is what remains of each step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from libra_edge.policy.config import PolicyConfig
from libra_edge.policy.libra_vla.backbone import pretrained
from libra_edge.policy.libra_vla.config import RefinerConfig
from libra_edge.policy.libra_vla.layers import (
    Attention,
    EncoderBlock,
    ImageTokens,
    mlp,
    sinusoidal_embedding,
)


class Context(NamedTuple):
    """What every denoising step of a chunk shares.

    intents: embedded intents [B, H, width];
    keys, values: cross-attention memory of each layer [B, heads, S, width / heads].
    """

    intents: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


class DenoiserBlock(nn.Module):
    """Self-attention, cross-attention and MLP, modulated by time (DiT's adaLN, PixArt's cross)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width = width
        self.self_attention = Attention(width, heads)
        self.norm_cross = nn.LayerNorm(width)
        self.cross_attention = Attention(width, heads)
        self.mlp = mlp(width)

    def forward(self, x: Tensor, modulation: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """Noisy x [B, H, width], modulation [B, 6 * width], keys and values → [B, H, width]."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = modulation[:, None].chunk(6, dim=-1)
        y = F.layer_norm(x, (self.width,)) * (1 + scale) + shift
        x = x + (1 + gate) * self.self_attention(y, y)
        x = x + self.cross_attention.attend(self.norm_cross(x), memory)
        y = F.layer_norm(x, (self.width,)) * (1 + scale_mlp) + shift_mlp
        return x + (1 + gate_mlp) * self.mlp(y)


def make_eyes(config: PolicyConfig, refiner: RefinerConfig) -> nn.Module | None:
    """The refiner's visual encoder: a stem, a pretrained one, or none."""
    robot, cameras = config.embodiment, config.num_cameras
    height, width = robot.image_height, robot.image_width
    if not refiner.visual_encoder:
        return None
    if refiner.eyes is None:
        return ImageTokens(refiner.stem_channels, refiner.width, cameras, height, width)
    make = pretrained("eyes").Eyes
    return cast(nn.Module, make(refiner.eyes, cameras, (height, width), refiner.width))


class Refiner(nn.Module):
    """Predicts noise, clean action or velocity of a chunk of H normalised actions."""

    def __init__(self, config: PolicyConfig, refiner: RefinerConfig) -> None:
        super().__init__()
        width = refiner.width
        self.width = width
        self.images = make_eyes(config, refiner)
        self.state = nn.Linear(config.state_dim, width)
        self.encoder = nn.ModuleList(
            EncoderBlock(width, refiner.heads) for _ in range(refiner.encoder_layers)
        )
        self.norm_memory = nn.LayerNorm(width)
        self.intents = nn.Parameter(torch.randn(config.action_dim, config.bins, width) * 0.02)
        self.noisy = nn.Linear(config.action_dim, width)
        self.position = nn.Parameter(torch.randn(config.chunk, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.modulate = nn.Linear(width, (6 * refiner.layers + 2) * width)
        self.blocks = nn.ModuleList(
            DenoiserBlock(width, refiner.heads) for _ in range(refiner.layers)
        )
        self.output = nn.Linear(width, config.action_dim)
        # Starts as an unmodulated transformer: gates one, scales one, shifts zero.
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def encode(self, images: Tensor, state: Tensor) -> Tensor:
        """Images uint8 [B, V, h, w, 3], normalised state [B, P] → memory [B, S, width]."""
        x = self.state(state)[:, None]
        if self.images is not None:
            x = torch.cat([self.images(images), x], dim=1)
        for block in self.encoder:
            x = block(x)
        memory: Tensor = self.norm_memory(x)
        return memory

    def context(self, memory: Tensor, intent: Tensor) -> Context:
        """Memory [B, S, width] and intent tokens int [B, H, D] → the chunk's `Context`."""
        tables = self.intents.unbind(0)
        embedded = [F.embedding(intent[..., d], table) for d, table in enumerate(tables)]
        pairs = [block.cross_attention.keys_values(memory) for block in self._denoisers()]
        return Context(
            torch.stack(embedded).sum(0) + self.position,
            tuple(key for key, _ in pairs),
            tuple(value for _, value in pairs),
        )

    def _denoisers(self) -> Iterator[DenoiserBlock]:
        return cast(Iterator[DenoiserBlock], iter(self.blocks))

    def modulation(self, timestep: Tensor) -> Tensor:
        """Time steps float [B] → adaLN modulation [B, (6 * layers + 2) * width]."""
        result: Tensor = self.modulate(self.time(sinusoidal_embedding(timestep, self.width)))
        return result

    def denoise(self, noisy: Tensor, modulation: Tensor, context: Context) -> Tensor:
        """One model evaluation: noisy actions [B, H, D] → prediction [B, H, D]."""
        x = self.noisy(noisy) + context.intents
        parts = modulation.split(6 * self.width, dim=-1)
        for block, part, key, value in zip(
            self.blocks, parts, context.keys, context.values, strict=False
        ):
            x = block(x, part, (key, value))
        shift, scale = parts[-1][:, None].chunk(2, dim=-1)
        prediction: Tensor = self.output(F.layer_norm(x, (self.width,)) * (1 + scale) + shift)
        return prediction

    def denoise_one(self, noisy: Tensor, modulation: Tensor, context: Context) -> Tensor:
        """`denoise` for one observation: noisy actions [H, D] → prediction [H, D]."""
        return self.denoise(noisy[None], modulation[None], context)[0]

    def forward(
        self, images: Tensor, state: Tensor, intent: Tensor, noisy: Tensor, timestep: Tensor
    ) -> Tensor:
        """Encode and evaluate once: the unfused step, as a naive export would run it."""
        context = self.context(self.encode(images, state), intent)
        return self.denoise(noisy, self.modulation(timestep), context)
