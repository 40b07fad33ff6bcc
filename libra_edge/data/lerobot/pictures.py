"""Camera pictures of a dataset, from videos or from PNG or JPEG files inside the tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libra_edge.data.lerobot.files import COPY_AGAIN, read_cells, require_whole
from libra_edge.data.types import UInt8Array
from libra_edge.data.video import Size, decode_picture, iterate_frames
from libra_edge.errors import InputError


@dataclass(frozen=True)
class Pictures:
    """One camera's pictures of one episode.

    Attributes:
        key: LeRobot's name of the feature.
        path: the mp4 file, or the parquet file that holds the pictures themselves.
        first: number of the first frame in the video, or of the first row in the table.
        count: how many.
        video: whether `path` is a video.
        root: the dataset's folder; pictures kept beside the tables are named relative to it.
    """

    key: str
    path: Path
    first: int
    count: int
    video: bool
    root: Path

    def read(
        self, fps: float, size: Size | None, first: int = 0, count: int | None = None
    ) -> Iterator[UInt8Array]:
        """Pictures [first, first + count), one at a time: uint8 [height, width, 3].

        Args:
            fps: frames per second of the recording.
            size: height and width to resize to; None leaves them as they are.
            first: where to begin, in frames of the episode.
            count: how many; None for all that follow.

        Raises:
            InputError: a file is missing, damaged or too short; a picture is not RGB.
        """
        wanted = self.count - first if count is None else count
        start = self.first + first
        if self.video:
            require_whole(self.path)
            yield from iterate_frames(self.path, fps, start, wanted, size)
            return
        for frame, content in self.stored(first, wanted):
            yield decode_picture(content, self._where(frame), size)

    def stored(self, first: int, count: int) -> Iterator[tuple[int, bytes]]:
        """Number and content of the picture files [first, first + count) of the tables.

        Raises:
            InputError: as `read`.
        """
        found = 0
        for cell in read_cells(self.path, self.key, self.first + first, count):
            yield first + found, self._content(cell, first + found)
            found += 1
        if found < count:
            raise InputError(
                "dataset-truncated",
                f"{self.path} holds {found} of {count} pictures of {self.key}.",
                COPY_AGAIN,
            )

    def _where(self, frame: int) -> str:
        return f"{self.key}, frame {frame} of {self.path}"

    def _content(self, cell: Any, frame: int) -> bytes:
        """What a cell holds: bytes, or LeRobot's table of bytes and path."""
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        name = cell.get("path") if isinstance(cell, dict) else None
        where = self._where(frame)
        if content is None and isinstance(name, str):
            file = self.root / name
            if ".." in Path(name).parts or not file.is_file():
                raise InputError(
                    "dataset-file-missing",
                    f"{where} points to the picture {name}, which is not in the dataset.",
                    "Embed the pictures (LeRobot's embed_images), or copy them along.",
                )
            content = file.read_bytes()
        if not isinstance(content, bytes):
            raise InputError(
                "dataset-picture-corrupt",
                f"{where} holds {type(content).__name__}, not a picture.",
                COPY_AGAIN,
            )
        return content
