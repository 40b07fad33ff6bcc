"""LeRobot's normalisation as two numbers per dimension, inside the graph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from libra_edge.policy.lerobot.folder import NEEDED, Normalization

Floats = npt.NDArray[np.float32]


class Normalizer(nn.Module):
    """(x - offset) / scale - shift, with the numbers of one feature as buffers.

    Mean and deviation divide by the deviation plus eps; a range maps to -1 and 1, eps standing for
    a width of none; nothing is clipped.

    Args:
        step: the folder's.
        feature, kind: of LeRobot.
        dims: numbers of the feature, or channels of a picture.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, step: Normalization, feature: str, kind: str, dims: int) -> None:
        super().__init__()
        mode = step.mode(kind)
        offset, scale = _numbers(step, feature, kind, dims)
        if mode == "MEAN_STD":
            scale = scale + np.float32(step.eps)
        self.shift = 0.0 if mode in ("IDENTITY", "MEAN_STD") else 1.0
        shape = (-1, 1, 1) if kind == "VISUAL" else (-1,)
        for name, value in (("offset", offset), ("scale", scale)):
            self.register_buffer(name, torch.from_numpy(value.reshape(shape)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] or [..., C, h, w] in the data's units to normalised."""
        return (x - self.offset) / self.scale - self.shift


def denormalizing(step: Normalization, feature: str, kind: str, dims: int) -> tuple[Floats, Floats]:
    """Offset and scale of what comes out: physical = normalised * scale + offset."""
    offset, scale = _numbers(step, feature, kind, dims)
    if step.mode(kind) in ("IDENTITY", "MEAN_STD"):
        return offset, scale
    return offset + scale, scale


def _numbers(step: Normalization, feature: str, kind: str, dims: int) -> tuple[Floats, Floats]:
    """Mean and deviation, or the lower end and half the width of a range."""
    names = NEEDED[step.mode(kind)]
    if not names:
        return np.zeros(dims, np.float32), np.ones(dims, np.float32)
    first, second = (step.statistics[feature][name].astype(np.float32) for name in names)
    if step.mode(kind) == "MEAN_STD":
        return first, second
    width = second - first
    half = np.where(width == 0, np.float32(step.eps), width) / 2
    return first, half.astype(np.float32)
