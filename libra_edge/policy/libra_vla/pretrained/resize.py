"""Camera bytes to a model's pictures, by fixed matrices and with an image processor's rounding.

Pillow and everything that imitates it resizes along rows, rounds to bytes, resizes along columns
and rounds again. Both are products with matrices that depend on the sizes alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from libra_edge.policy.libra_vla.pretrained.config import PicturesConfig, Resample
from libra_edge.policy.libra_vla.pretrained.sizes import arrangement

_SUPPORT: dict[Resample, float] = {"bilinear": 1.0, "bicubic": 2.0}


def _filter(x: npt.NDArray[np.float64], resample: Resample) -> npt.NDArray[np.float64]:
    """The kernel at distances x >= 0; bicubic with a = -0.5 (Keys 1981)."""
    if resample == "bilinear":
        return np.clip(1.0 - x, 0.0, None)
    near = ((1.5 * x) - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def matrix(before: int, after: int, resample: Resample) -> npt.NDArray[np.float64]:
    """One axis resized with antialiasing: float64 [after, before]."""
    scale = before / after
    stretch = max(scale, 1.0)
    reach = _SUPPORT[resample] * stretch
    result = np.zeros((after, before))
    for row in range(after):
        centre = (row + 0.5) * scale
        first, end = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), before)
        weights = _filter(np.abs((np.arange(first, end) - centre + 0.5) / stretch), resample)
        result[row, first:end] = weights / weights.sum()
    return result


class Resize(nn.Module):
    """Pictures float [N, 3, h, w] of whole numbers to others of another size, [N, 3, H, W].

    Args:
        before: height and width of what comes in.
        after: what they are resized to.
        resample: the kernel.
        crop: height and width that are cut out of the middle, as transformers does; None for all.
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        before: tuple[int, int],
        after: tuple[int, int],
        resample: Resample,
        crop: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        kept = crop or after
        self.needed = []
        for name, axis in (("rows", 0), ("columns", 1)):
            first = (after[axis] - kept[axis]) // 2
            whole = matrix(before[axis], after[axis], resample)
            product = torch.from_numpy(whole[first : first + kept[axis]].astype(np.float32))
            self.register_buffer(name, product, persistent=False)
            self.needed.append(before[axis] != kept[axis] or before[axis] != after[axis])

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        rows_change, columns_change = self.needed
        if columns_change:
            # The matrix in front, as a weight never stands: it is none of a layer's.
            turned = self.columns @ pictures.transpose(2, 3)
            pictures = _as_bytes(turned).transpose(2, 3)
        if rows_change:
            pictures = _as_bytes(self.rows @ pictures)
        return pictures


def _as_bytes(x: Tensor) -> Tensor:
    # Halves go up, as in integers.
    return (x + 0.5).floor().clamp(0.0, 255.0)


class Normalized(nn.Module):
    """Bytes as floats [N, 3, h, w] to a model's values."""

    mean: Tensor
    std: Tensor

    def __init__(self, pictures: PicturesConfig) -> None:
        super().__init__()
        for name, values in (("mean", pictures.mean), ("std", pictures.std)):
            pixel = 255.0 * torch.tensor(values, dtype=torch.float32)
            self.register_buffer(name, pixel, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        return (pictures - self.mean[:, None, None]) / self.std[:, None, None]


class Tiles(nn.Module):
    """One picture to its tiles: float [N, 3, h, w] to [N, tiles, 3, side, side].

    Args:
        before: height and width of what comes in.
        side: of a tile.
        fewest: tiles of the arrangement; with more than one the whole picture comes last.
        most: likewise.
        resample: the kernel.
    """

    def __init__(
        self, before: tuple[int, int], side: int, fewest: int, most: int, resample: Resample
    ) -> None:
        super().__init__()
        self.side = side
        self.columns, self.rows = arrangement(before, side, fewest, most)
        self.cut = self.columns * self.rows > 1
        self.whole = Resize(before, (side, side), resample)
        if self.cut:
            self.canvas = Resize(before, (side * self.rows, side * self.columns), resample)

    @property
    def count(self) -> int:
        """Tiles of one picture."""
        return self.columns * self.rows + int(self.cut)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        whole = self.whole(pictures)[:, None]
        if not self.cut:
            return whole
        canvas = self.canvas(pictures)
        parts = canvas.unflatten(3, (self.columns, self.side)).unflatten(2, (self.rows, self.side))
        return torch.cat([parts.permute(0, 2, 4, 1, 3, 5).flatten(1, 2), whole], dim=1)
