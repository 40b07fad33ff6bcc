"""ResNet with basic blocks (He et al. 2016), as wide and as deep as a folder's tensors say.

Frozen or running batch statistics and group norms; the names are torchvision's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from libra_edge.errors import InputError

_STRIDES = (1, 2, 2, 2)
Norm = Callable[[int], nn.Module]


class FrozenNorm(nn.Module):
    """Batch normalisation by stored statistics: `eps` and names as torchvision's frozen one."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "running_var"):
            self.register_buffer(name, torch.ones(channels))
        for name in ("bias", "running_mean"):
            self.register_buffer(name, torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w]."""
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)


def group_norm(channels: int) -> nn.Module:
    """One group for 16 channels, as LeRobot replaces batch norms."""
    return nn.GroupNorm(channels // 16, channels)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = norm(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = norm(outside)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), norm(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w]."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class ResNet(nn.Module):
    """Pictures [B, 3, h, w] to the last feature map.

    Args:
        widths: channels of the four stages.
        depths: blocks of each.
        norm: what follows every convolution.
    """

    def __init__(self, widths: list[int], depths: list[int], norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False)
        self.bn1 = norm(widths[0])
        inside = widths[0]
        for number, (width, depth, stride) in enumerate(
            zip(widths, depths, _STRIDES, strict=True), start=1
        ):
            blocks = [Block(inside, width, stride, norm)]
            blocks += [Block(width, width, 1, norm) for _ in range(depth - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            inside = width
        self.width = inside

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        for number in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{number}")(x)
        return x


@torch.no_grad()
def fold(network: ResNet) -> None:
    """Put batch norms into the convolutions before them, in double precision; others stay.

    The graph then holds the very weights that the policy names, and each layer is one operator.
    """
    _fold(network, "conv1", "bn1")
    for block in network.modules():
        if isinstance(block, Block):
            _fold(block, "conv1", "bn1")
            _fold(block, "conv2", "bn2")
            if isinstance(block.downsample, nn.Sequential):
                _fold(block.downsample, "0", "1")


def _fold(module: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, FrozenNorm | nn.BatchNorm2d):
        return
    numbers = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    weight, bias, mean, variance = (cast(Tensor, number).double() for number in numbers)
    scale = weight / torch.sqrt(variance + 1e-5)
    conv.weight.copy_((conv.weight.double() * scale[:, None, None, None]).float())
    conv.bias = nn.Parameter((bias - mean * scale).float(), requires_grad=False)
    setattr(module, norm_name, nn.Identity())


def resnet_like(shapes: Mapping[str, tuple[int, ...]], norm: Norm) -> ResNet:
    """The network that tensors of these names and shapes belong to.

    Raises:
        InputError: they are none of a ResNet with basic blocks.
    """
    blocks: dict[int, dict[int, int]] = {}
    for name, shape in shapes.items():
        if found := re.fullmatch(r"layer(\d)\.(\d+)\.conv2\.weight", name):
            blocks.setdefault(int(found[1]), {})[int(found[2])] = shape[0]
    plain = "layer1.0.conv3.weight" not in shapes
    if sorted(blocks) != [1, 2, 3, 4] or not plain or "conv1.weight" not in shapes:
        raise InputError(
            "lerobot-backbone-unsupported",
            "The vision backbone's tensors are not those of a ResNet with basic blocks "
            "(resnet18, resnet34).",
            "Train the policy with vision_backbone resnet18 or resnet34.",
        )
    widths = [blocks[stage][0] for stage in (1, 2, 3, 4)]
    return ResNet(widths, [len(blocks[stage]) for stage in (1, 2, 3, 4)], norm)
