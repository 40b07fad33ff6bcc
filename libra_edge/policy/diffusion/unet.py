"""The denoiser: a one-dimensional UNet over the steps of the sample, conditioned by FiLM.

What conditions a block is linear in time and observation after the Mish, so both halves are
computed apart: that of the time steps at compile time, that of the observation once for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """dims: channels of each level; seen: numbers of what is known of the observation."""

    action_dim: int
    dims: tuple[int, ...]
    kernel: int
    groups: int
    time: int
    seen: int
    scales: bool


def _three(level: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module]:
    first, second, third = cast(nn.ModuleList, level)
    return first, second, third


class ConvBlock(nn.Module):
    """Convolution, group norm, Mish."""

    def __init__(self, inside: int, outside: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(inside, outside, kernel, padding=kernel // 2),
            nn.GroupNorm(groups, outside),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[1, C, horizon]."""
        out: Tensor = self.block(x)
        return out


class FilmBlock(nn.Module):
    """Two convolutions beside a shortcut; between them a shift, and a scale, of each channel."""

    def __init__(self, inside: int, outside: int, sizes: Sizes) -> None:
        super().__init__()
        self.outside, self.scales = outside, sizes.scales
        self.conditions = outside * (2 if sizes.scales else 1)
        self.conv1 = ConvBlock(inside, outside, sizes.kernel, sizes.groups)
        self.of_time = nn.Linear(sizes.time, self.conditions)
        self.of_seen = nn.Linear(sizes.seen, self.conditions, bias=False)
        self.conv2 = ConvBlock(outside, outside, sizes.kernel, sizes.groups)
        same = inside == outside
        self.residual_conv = nn.Identity() if same else nn.Conv1d(inside, outside, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """X [1, C, horizon], condition [conditions]."""
        out = self.conv1(x)
        if self.scales:
            scale, shift = condition[: self.outside, None], condition[self.outside :, None]
            out = scale * out + shift
        else:
            out = out + condition[:, None]
        result: Tensor = self.conv2(out) + self.residual_conv(x)
        return result


class Unet(nn.Module):
    """Noisy sample [horizon, D] and conditions to what the network predicts; LeRobot's names."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.time = sizes.time
        self.diffusion_step_encoder = nn.Sequential(
            nn.Identity(),
            nn.Linear(sizes.time, sizes.time * 4),
            nn.Mish(),
            nn.Linear(sizes.time * 4, sizes.time),
        )
        levels = list(zip((sizes.action_dim, *sizes.dims), sizes.dims, strict=False))
        self.down_modules = nn.ModuleList()
        for number, (inside, outside) in enumerate(levels):
            deepest = number == len(levels) - 1
            self.down_modules.append(
                nn.ModuleList(
                    [
                        FilmBlock(inside, outside, sizes),
                        FilmBlock(outside, outside, sizes),
                        nn.Identity() if deepest else nn.Conv1d(outside, outside, 3, 2, 1),
                    ]
                )
            )
        deep = sizes.dims[-1]
        self.mid_modules = nn.ModuleList(FilmBlock(deep, deep, sizes) for _ in range(2))
        self.up_modules = nn.ModuleList(
            nn.ModuleList(
                [
                    FilmBlock(outside * 2, inside, sizes),
                    FilmBlock(inside, inside, sizes),
                    nn.ConvTranspose1d(inside, inside, 4, 2, 1),
                ]
            )
            for inside, outside in reversed(levels[1:])
        )
        self.final_conv = nn.Sequential(
            ConvBlock(sizes.dims[0], sizes.dims[0], sizes.kernel, 8),
            nn.Conv1d(sizes.dims[0], sizes.action_dim, 1),
        )

    @property
    def blocks(self) -> list[FilmBlock]:
        """All that are conditioned, in the order they run."""
        return [module for module in self.modules() if isinstance(module, FilmBlock)]

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return cast("nn.Conv1d", self.final_conv[1]).weight.dtype

    def of_time(self, times: Tensor) -> Tensor:
        """Time steps float [K] to each block's share, side by side, [K, sum of conditions]."""
        half = self.time // 2
        frequencies = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
        angles = times[:, None] * frequencies
        encoded = self.diffusion_step_encoder(torch.cat((angles.sin(), angles.cos()), -1))
        active = nn.functional.mish(encoded)
        return torch.cat([block.of_time(active) for block in self.blocks], -1)

    def of_observation(self, seen: Tensor) -> Tensor:
        """What is known of the observation [seen] to each block's share, [sum of conditions]."""
        active = nn.functional.mish(seen).to(self.dtype)
        return torch.cat([block.of_seen(active) for block in self.blocks], -1).float()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """X [horizon, D], condition [sum of conditions]."""
        parts = iter(condition.to(self.dtype).split([b.conditions for b in self.blocks]))
        x = x.to(self.dtype).transpose(0, 1)[None]
        skipped = []
        for first, second, smaller in map(_three, self.down_modules):
            x = second(first(x, next(parts)), next(parts))
            skipped.append(x)
            x = smaller(x)
        for block in self.mid_modules:
            x = block(x, next(parts))
        for first, second, larger in map(_three, self.up_modules):
            x = torch.cat((x, skipped.pop()), 1)
            x = larger(second(first(x, next(parts)), next(parts)))
        out: Tensor = self.final_conv(x)[0].transpose(0, 1)
        return out
