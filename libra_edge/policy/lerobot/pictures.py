"""Camera bytes as the engine gets them, to what LeRobot's policies see."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from libra_edge.policy.lerobot.folder import Folder
from libra_edge.policy.lerobot.normalize import Normalizer


class Pictures(nn.Module):
    """images uint8 [V, h, w, 3], or [bytes] where sizes differ, to V pictures [B, 3, h, w].

    B is 1, or the observation steps where they stand in front. Values are divided by 255 and
    normalised as the folder says.
    """

    def __init__(self, folder: Folder, steps: int = 1) -> None:
        super().__init__()
        self.sizes = [size for _, size in folder.cameras.values()]
        self.steps = steps
        step = folder.steps.normalization
        self.normalizers = nn.ModuleList(
            Normalizer(step, feature, "VISUAL", 3) for feature, _ in folder.cameras.values()
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        # Cast before anything else: TensorRT-RTX takes bytes in this order alone.
        parts = unpacked(images.float(), self.sizes, self.steps)
        return [
            normalizer(part.permute(0, 3, 1, 2) / 255.0)
            for part, normalizer in zip(parts, self.normalizers, strict=True)
        ]


def unpacked(images: Tensor, sizes: Sequence[tuple[int, int]], steps: int) -> list[Tensor]:
    """Each camera's pictures [S, h, w, 3]."""
    if len(set(sizes)) == 1:
        height, width = sizes[0]
        together = images.reshape(steps, len(sizes), height, width, 3)
        return list(together.unbind(1))
    counts = [height * width * 3 for height, width in sizes]
    flat = images.reshape(steps, sum(counts))
    starts = [0, *accumulate(counts)]
    return [
        flat[:, start : start + count].reshape(steps, height, width, 3)
        for start, count, (height, width) in zip(starts, counts, sizes, strict=False)
    ]


def flattened(pictures: Sequence[Tensor], steps: int) -> Tensor:
    """The inverse: pictures of each camera uint8 [S, h, w, 3] as an engine takes them."""
    if len({picture.shape for picture in pictures}) == 1:
        together = torch.stack(list(pictures), 1)
        return together if steps > 1 else together[0]
    flat = torch.cat([picture.reshape(steps, -1) for picture in pictures], 1)
    return flat if steps > 1 else flat[0]


class Padded(nn.Module):
    """Pictures [B, 3, h, w] resized without distortion, and black around them.

    Bilinear without antialiasing, sides rounded down, as openpi and LeRobot do it.

    Args:
        size: height and width of what comes in.
        target: of what goes out.
        centred: black on both sides; else on the left and on top alone.
    """

    def __init__(self, size: tuple[int, int], target: tuple[int, int], *, centred: bool) -> None:
        super().__init__()
        ratio = max(size[1] / target[1], size[0] / target[0])
        self.inside = (int(size[0] / ratio), int(size[1] / ratio))
        self.same = size == target
        rest = [whole - side for whole, side in zip(target, self.inside, strict=True)]
        before = [side // 2 if centred else side for side in rest]
        (top, left), (bottom, right) = before, [r - b for r, b in zip(rest, before, strict=True)]
        self.around = (left, right, top, bottom)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        if self.same:
            return pictures
        if tuple(pictures.shape[-2:]) != self.inside:
            pictures = nn.functional.interpolate(pictures, size=self.inside, mode="bilinear")
        return nn.functional.pad(pictures, self.around) if any(self.around) else pictures
