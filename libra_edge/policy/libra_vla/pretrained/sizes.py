"""What image processors make of a picture's size."""

from __future__ import annotations

import math


def arrangement(before: tuple[int, int], side: int, fewest: int, most: int) -> tuple[int, int]:
    """Columns and rows of tiles whose shape is the closest to a picture's.

    Of arrangements that are equally close the last wins for which the picture has more than half of
    its pixels: GOT-OCR2's rule, which InternVL's processor follows.
    """
    height, width = before
    grids = [
        (columns, rows)
        for columns in range(1, most + 1)
        for rows in range(1, most + 1)
        if fewest <= columns * rows <= most
    ]
    best, closest = (1, 1), math.inf
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        distance = abs(width / height - columns / rows)
        large = height * width > 0.5 * side * side * columns * rows
        if distance < closest or (distance == closest and large):
            best, closest = (columns, rows), distance
    return best


def smart_size(
    before: tuple[int, int], multiple: int, fewest: int, most: int
) -> tuple[int, int] | None:
    """Height and width that Qwen2-VL's processor gives a picture; None for shapes that it refuses.

    Args:
        before: height and width of the picture.
        multiple: what both sides become multiples of.
        fewest: pixels in all.
        most: likewise.
    """
    height, width = before
    if max(before) / min(before) > 200:
        return None
    tall, wide = (round(side / multiple) * multiple for side in before)
    if tall * wide > most:
        shrink = math.sqrt(height * width / most)
        tall, wide = (max(multiple, math.floor(s / shrink / multiple) * multiple) for s in before)
    elif tall * wide < fewest:
        grow = math.sqrt(fewest / (height * width))
        tall, wide = (math.ceil(side * grow / multiple) * multiple for side in before)
    return tall, wide


def short_side(before: tuple[int, int], edge: int) -> tuple[int, int]:
    """Height and width with the shorter side `edge`, as transformers rounds the longer one."""
    height, width = before
    if height <= width:
        return edge, int(edge * width / height)
    return int(edge * height / width), edge
