"""Building blocks shared by the planner and the refiner (PyTorch)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def sinusoidal_embedding(positions: Tensor, width: int) -> Tensor:
    """Sine-cosine features of float positions [...] → [..., width] (Vaswani et al. 2017)."""
    half = width // 2
    frequencies = torch.exp(
        -math.log(10_000.0) * torch.arange(half, device=positions.device) / half
    )
    angles = positions.float()[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be computed ahead of the queries."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, heads, S, width / heads] of a memory [B, S, width]."""
        key, value = self.key_value(memory).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def attend(
        self, x: Tensor, keys_values: tuple[Tensor, Tensor], bias: Tensor | None = None
    ) -> Tensor:
        """Attend from x [B * R, Q, width] to precomputed keys and values of batch size B.

        `bias` [B, 1, 1, S] is added to the scores. Training draws several noises per observation:
        the R consecutive rows of x that share a memory become one row of R * Q queries.
        """
        memories = len(keys_values[0])
        queries = x if len(x) == memories else x.reshape(memories, -1, x.shape[-1])
        split = self._split(self.query(queries))
        y = F.scaled_dot_product_attention(split, *keys_values, attn_mask=bias)
        return self.output(y.transpose(1, 2).flatten(2)).reshape(x.shape)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend from x [B, Q, width] to memory [B, S, width]."""
        return self.attend(x, self.keys_values(memory), bias)


def mlp(width: int) -> nn.Sequential:
    """The transformer's position-wise network, four times as wide inside."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class EncoderBlock(nn.Module):
    """Pre-norm transformer block; with `memory` given, attends to memory and itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = mlp(width)

    def forward(
        self, x: Tensor, memory: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """X [B, S, width], memory [B, R, width] or None → [B, S, width].

        `bias` [B, 1, 1, R + S] is added to the scores of memory and x as keys.
        """
        y = self.norm_attention(x)
        x = x + self.attention(y, y if memory is None else torch.cat([memory, y], dim=1), bias)
        return x + self.mlp(self.norm_mlp(x))


class ImageTokens(nn.Module):
    """Camera bytes to tokens: a strided convolutional stem, one token per 16 x 16 pixels or so.

    Early convolutions instead of large patches (Xiao et al. 2021) learn from little data.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, channels: Sequence[int], width: int, cameras: int, height: int, image_width: int
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        before = 3
        for after in (*channels, width):
            stages.append(nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1))
            if after != width:
                stages += [nn.GroupNorm(math.gcd(8, after), after), nn.SiLU()]
            before = after
            height, image_width = -(-height // 2), -(-image_width // 2)
        self.stem = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(width)
        self.position = nn.Parameter(torch.randn(cameras, height * image_width, width) * 0.02)
        for name, values in (("mean", IMAGE_MEAN), ("std", IMAGE_STD)):
            pixel = 255.0 * torch.tensor(values, dtype=torch.float32)
            self.register_buffer(name, pixel, persistent=False)

    @property
    def count(self) -> int:
        """Number of tokens of all cameras together."""
        return self.position.shape[0] * self.position.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 [B, V, h, w, 3] → tokens float [B, V * tokens, width]."""
        # Channels first before the arithmetic, which then runs along rows of pixels: the same
        # numbers, a twentieth of an engine sooner on a CPU. TensorRT-RTX wants floats to move.
        pixels = images.flatten(0, 1).float().permute(0, 3, 1, 2)
        mean, std = self.mean[:, None, None], self.std[:, None, None]
        channels = ((pixels - mean) / std).to(self.position.dtype)
        features = self.stem(channels).flatten(2).transpose(1, 2)
        tokens = self.norm(features).unflatten(0, images.shape[:2]) + self.position
        return tokens.flatten(1, 2)
