"""Words in pictures."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from libra_edge.data.types import UInt8Array

HEIGHT = 14
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def _font() -> _Font:
    return ImageFont.load_default()


def draw(frame: UInt8Array, words: str, top: int, left: int, colour: tuple[int, int, int]) -> None:
    """Write one line into a picture uint8 [height, width, 3]; what does not fit is cut off."""
    strip = frame[top : top + HEIGHT]
    picture = Image.fromarray(strip)
    # The font that comes with Pillow may have Latin letters alone.
    shown = words.encode("latin-1", "replace").decode("latin-1")
    ImageDraw.Draw(picture).text((left, 0), shown, fill=colour, font=_font())
    strip[:] = np.asarray(picture)
