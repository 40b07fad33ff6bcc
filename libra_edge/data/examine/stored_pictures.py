"""Pictures kept in the tables: every one there, whole and of the size it says; none decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from libra_edge.data.findings import Finding, error, from_error
from libra_edge.data.lerobot.dataset import Dataset
from libra_edge.data.lerobot.files import COPY_AGAIN
from libra_edge.data.lerobot.match import named_size
from libra_edge.errors import InputError

_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"


def check_stored_pictures(dataset: Dataset, key: str) -> Iterator[Finding]:
    """The first picture of a camera that is not one, or of another size."""
    size = named_size(dataset.layout.features[key])
    for info in dataset.episodes:
        where: dict[str, Any] = {"feature": key, "episode": info.index}
        frame = 0
        try:
            for frame, content in info.pictures[key].stored(0, info.length):
                if wrong := _what_is_wrong(content, size):
                    yield error(
                        "dataset-picture-corrupt",
                        f"{key} of episode {info.index}, frame {frame}: {wrong}.",
                        COPY_AGAIN,
                        frame=frame,
                        **where,
                    )
                    return
                frame += 1
        except InputError as caught:
            yield from_error(caught, frame=frame, **where)
            return


def _what_is_wrong(content: bytes, size: tuple[int, int]) -> str:
    """By the first and last bytes alone; nothing for kinds of files that are not known here."""
    if not content:
        return "the picture is empty"
    if content.startswith(_PNG):
        found = tuple(int.from_bytes(content[at : at + 4], "big") for at in (20, 16))
        if not content.rstrip(b"\0").endswith(_PNG_END):
            return f"the picture ends early, after {len(content)} bytes"
        if found != size:
            return f"the picture is {found[0]} x {found[1]}, not {size[0]} x {size[1]}"
        return ""
    if content.startswith(_JPEG):
        whole = content.rstrip(b"\0").endswith(_JPEG_END)
        return "" if whole else f"the picture ends early, after {len(content)} bytes"
    return f"{len(content)} bytes that are neither PNG nor JPEG"
