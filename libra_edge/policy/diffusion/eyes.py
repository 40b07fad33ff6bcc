"""Pictures to features: resize and centre crop, ResNet, keypoints by a spatial softmax."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from libra_edge.policy.lerobot.resnet import ResNet


class Framing(nn.Module):
    """Pictures [B, 3, h, w] brought to size as torchvision does in evaluation.

    A resize with antialiasing is a product with a fixed matrix along each side.

    Args:
        size: height and width of what comes in.
        resized: of what a resize makes of it; None for none.
        cropped: of the centre that is cut out then; None for none.
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        size: tuple[int, int],
        resized: tuple[int, int] | None,
        cropped: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.resized, inside = resized, resized or size
        self.cropped = cropped or inside
        self.start = tuple(round((a - b) / 2) for a, b in zip(inside, self.cropped, strict=True))
        if resized is not None:
            for name, before, after in zip(("rows", "columns"), size, resized, strict=True):
                self.register_buffer(name, _weights(before, after), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        if self.resized is not None:
            pictures = self.rows @ (pictures @ self.columns.transpose(0, 1))
        (top, left), (height, width) = self.start, self.cropped
        return pictures[:, :, top : top + height, left : left + width]


def _weights(before: int, after: int) -> Tensor:
    """The matrix [after, before] of a bilinear resize with antialiasing."""
    return nn.functional.interpolate(
        torch.eye(before)[None, None], size=(after, before), mode="bilinear", antialias=True
    )[0, 0]


class Keypoints(nn.Module):
    """Feature maps [B, C, h, w] to the mean places of K softmaxes, [B, 2 K]."""

    def __init__(self, channels: int, points: int, places: int) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, points, 1)
        self.places = nn.Linear(places, 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        attention = self.nets(features).flatten(2).softmax(-1)
        out: Tensor = self.places(attention)
        return out.flatten(1)


class Eyes(nn.Module):
    """One camera's pictures [B, 3, h, w], brought to size, to features [B, F]."""

    def __init__(self, backbone: ResNet, points: int, places: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = Keypoints(backbone.width, points, places)
        self.out = nn.Linear(2 * points, 2 * points)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        pictures = pictures.to(self.out.weight.dtype)
        return torch.relu(self.out(self.pool(self.backbone(pictures))))
