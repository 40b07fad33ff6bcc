"""Qwen2.5-VL as the planner's backbone.

The vision tower takes any grid; here the grid is known, so that the order of its windows, the
positions and the lengths are constants. A still picture fills both of its time steps: the two
halves of the patch embedding are one convolution.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from libra_edge.policy.libra_vla.pretrained.build import build
from libra_edge.policy.libra_vla.pretrained.config import QwenVisionConfig, QwenVlConfig
from libra_edge.policy.libra_vla.pretrained.language import MASKED, Hidden, Prompt
from libra_edge.policy.libra_vla.pretrained.resize import Normalized, Resize

_THETA = 10_000.0


class QwenVl(nn.Module):
    """Camera bytes, instruction and state to the hidden states of Qwen2.5-VL's language model.

    Args:
        config: the model.
        size: height and width of the cameras' pictures, one that the model takes.
        length: T, of an instruction.
        state_dim: P.
    """

    def __init__(
        self, config: QwenVlConfig, size: tuple[int, int], length: int, state_dim: int
    ) -> None:
        super().__init__()
        self.width = config.width
        target = config.target(size)
        if target is None:
            raise ValueError(f"Qwen2.5-VL takes no pictures of {size}")
        self.resize = Resize(size, target, config.pictures.resample)
        self.normalized = Normalized(config.pictures)
        merge = config.vision.spatial_merge_size
        grid = (target[0] // config.vision.patch_size, target[1] // config.vision.patch_size)
        self.tower = Windows(config.vision, grid)
        cameras = len(config.prompt.before)
        merged = (grid[0] // merge, grid[1] // merge)
        self.prompt = Prompt(config.prompt, [merged] * cameras, length, axes=3)
        model: Any = build(config)
        patch = config.vision.patch_size
        model.visual.patch_embed = nn.Conv2d(3, config.vision.hidden_size, patch, patch, bias=False)
        self.model = model
        self.state = nn.Linear(state_dim, self.width)

    @property
    def vision(self) -> tuple[nn.Module, ...]:
        """What sees, up to the features that the language model is given in another form."""
        return (self.model.visual.patch_embed, self.model.visual.blocks)

    def forward(self, images: Tensor, instruction: Tensor, state: Tensor) -> Hidden:
        """Images uint8 [B, V, h, w, 3], instruction [B, T], normalised state [B, P]."""
        features = self.features(images).unbind(1)
        words = self.model.language_model
        return self.prompt(words, features, instruction, self.state(state))

    def features(self, images: Tensor) -> Tensor:
        """Images uint8 [B, V, h, w, 3] to tokens [B, V, tokens, width]."""
        pixels = images.flatten(0, 1).float().permute(0, 3, 1, 2)
        pictures = self.normalized(self.resize(pixels))
        return self.tower(self.model.visual, pictures).unflatten(0, images.shape[:2])


class Windows(nn.Module):
    """The walk through Qwen2.5-VL's vision tower for pictures of one grid.

    Args:
        config: the tower.
        grid: rows and columns of patches.
    """

    order: Tensor
    back: Tensor
    cos: Tensor
    sin: Tensor
    apart: Tensor

    def __init__(self, config: QwenVisionConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.merge, self.heads = grid, config.spatial_merge_size, config.num_heads
        self.whole = frozenset(config.fullatt_block_indexes)
        order, lengths = _window_order(config, grid)
        # Windows of one length are a batch of their own; others are told apart by a mask.
        self.length = lengths[0] if len(set(lengths)) == 1 else None
        numbers = np.repeat(np.arange(len(lengths)), lengths)
        apart = np.where(numbers[:, None] == numbers, 0.0, MASKED).astype(np.float32)
        angles = _angles(config, grid, order)
        for name, values in (
            ("order", order),
            ("back", np.argsort(order)),
            ("cos", np.cos(angles).astype(np.float32)),
            ("sin", np.sin(angles).astype(np.float32)),
            ("apart", apart if self.length is None else np.zeros((0, 0), np.float32)),
        ):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def forward(self, tower: Any, pictures: Tensor) -> Tensor:
        """Normalised pictures [N, 3, h, w] to tokens [N, tokens, width]."""
        convolution = tower.patch_embed
        x = convolution(pictures.to(convolution.weight.dtype))
        rows, columns, merge = *self.grid, self.merge
        x = x.unflatten(3, (columns // merge, merge)).unflatten(2, (rows // merge, merge))
        # Patches of one token follow one another: [N, tokens, patches of each, width].
        x = x.permute(0, 2, 4, 3, 5, 1).flatten(1, 2).flatten(2, 3)
        x = x.index_select(1, self.order).flatten(1, 2)
        for number, block in enumerate(tower.blocks):
            x = x + self._attend(block.attn, block.norm1(x), whole=number in self.whole)
            x = x + block.mlp(block.norm2(x))
        tokens: Tensor = tower.merger(x.contiguous()).unflatten(0, (len(pictures), -1))
        return tokens.index_select(1, self.back)

    def _attend(self, attention: Any, x: Tensor, *, whole: bool) -> Tensor:
        q, k, v = attention.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k = (self._turned(part).to(v.dtype) for part in (q, k))
        parts, mask = [q, k, v], None
        if not whole and self.length is not None:
            parts = [part.unflatten(1, (-1, self.length)).flatten(0, 1) for part in parts]
        elif not whole:
            mask = self.apart.to(v.dtype)
        q, k, v = (part.transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        result: Tensor = attention.proj(y.transpose(1, 2).reshape(x.shape))
        return result

    def _turned(self, x: Tensor) -> Tensor:
        x = x.float()
        first, second = x.chunk(2, dim=-1)
        return x * self.cos[:, None] + torch.cat([-second, first], dim=-1) * self.sin[:, None]


def _window_order(
    config: QwenVisionConfig, grid: tuple[int, int]
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[int]]:
    """Merged patches in the order of their windows, and the patches of each window."""
    rows, columns = (side // config.spatial_merge_size for side in grid)
    side = config.window_size // config.spatial_merge_size // config.patch_size
    numbers = np.arange(rows * columns).reshape(rows, columns)
    windows = [
        numbers[top : top + side, left : left + side].reshape(-1)
        for top in range(0, rows, side)
        for left in range(0, columns, side)
    ]
    lengths = [len(window) * config.spatial_merge_size**2 for window in windows]
    return np.concatenate(windows), lengths


def _angles(
    config: QwenVisionConfig, grid: tuple[int, int], order: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Of rotary positions, patch by patch in the order of the windows: float32 [N, head width]."""
    merge, width = config.spatial_merge_size, config.hidden_size // config.num_heads
    places = np.mgrid[: grid[0], : grid[1]]
    blocks = places.reshape(2, grid[0] // merge, merge, grid[1] // merge, merge)
    patches = blocks.transpose(1, 3, 2, 4, 0).reshape(len(order), merge * merge, 2)[order]
    exponents = np.arange(0, width // 2, 2, dtype=np.float32) / np.float32(width // 2)
    frequencies = (1.0 / np.float32(_THETA) ** exponents).astype(np.float32)
    angles = patches.reshape(-1, 2, 1).astype(np.float32) * frequencies
    return np.tile(angles.reshape(len(angles), -1), 2)
