"""Camera recordings in mp4 files: written frame by frame, read by frame number."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from libra_edge.data.types import UInt8Array
from libra_edge.errors import InputError

# SVT-AV1 prints its configuration for every file unless told to report errors only.
os.environ.setdefault("SVT_LOG", "1")

import av
import av.error

Codec = Literal["av1", "lossless"]

# "av1" is LeRobot's convention and lossy (subsampled colour). "lossless" keeps every pixel at 3 to
# 5 times the size, for simulators: what is learnt from is then exactly what the robot sees later.
# A key frame every 8 frames bounds the cost of reading one frame.
_ENCODERS: dict[Codec, tuple[str, str, dict[str, str]]] = {
    "av1": (
        "libsvtav1",
        "yuv420p",
        {"crf": "18", "preset": "10", "g": "8", "svtav1-params": "lp=1"},
    ),
    "lossless": ("libx264rgb", "rgb24", {"qp": "0", "preset": "veryfast", "g": "8"}),
}


class VideoWriter:
    """One mp4 file of a fixed frame rate.

    Args:
        path: file to write.
        fps: frames per second.
        height: pixels.
        width: pixels.
        codec: "av1" or "lossless".
    """

    def __init__(self, path: Path, fps: int, height: int, width: int, codec: Codec) -> None:
        encoder, pixel_format, options = _ENCODERS[codec]
        self._container = av.open(str(path), "w")
        stream: Any = self._container.add_stream(encoder, rate=fps, options=options)
        self._stream = stream
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = pixel_format
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.time_base = Fraction(1, fps)

    def write(self, frames: UInt8Array) -> None:
        """Append frames: uint8 [T, height, width, 3]."""
        for pixels in frames:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            self._container.mux(self._stream.encode(image))

    def close(self) -> None:
        """Write what is pending and the file's index."""
        self._container.mux(self._stream.encode())
        self._container.close()


def video_info(codec: Codec, fps: int, height: int, width: int) -> dict[str, Any]:
    """The `info` block LeRobot keeps for a video feature."""
    return {
        "video.height": height,
        "video.width": width,
        "video.codec": {"av1": "av1", "lossless": "h264"}[codec],
        "video.pix_fmt": {"av1": "yuv420p", "lossless": "gbrp"}[codec],
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }


def read_frames(path: Path, fps: float, first: int, count: int) -> UInt8Array:
    """Decode frames [first, first + count) of a video.

    Args:
        path: mp4 file.
        fps: frames per second of the recording.
        first: number of the first frame, counted from the beginning of the file.
        count: how many frames.

    Returns:
        uint8 [count, height, width, 3].

    Raises:
        InputError: the file is missing, damaged or too short.
    """
    if not path.is_file():
        raise InputError(
            "dataset-file-missing", f"{path} does not exist.", "Copy the dataset again, complete."
        )
    try:
        frames = _decode(path, fps, first, count)
    except (av.error.FFmpegError, IndexError) as error:
        raise InputError(
            "video-corrupt", f"{path} cannot be decoded: {error}.", "Copy the dataset again."
        ) from error
    missing = [first + i for i in range(count) if first + i not in frames]
    if missing:
        raise InputError(
            "video-too-short",
            f"{path} has no frame {missing[0]} ({len(missing)} of {count} are missing).",
            "Copy the dataset again; its index promises more frames than the video holds.",
        )
    return np.stack([frames[first + i] for i in range(count)])


def _decode(path: Path, fps: float, first: int, count: int) -> dict[int, UInt8Array]:
    frames: dict[int, UInt8Array] = {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if stream.time_base is None:
            raise IndexError("the video has no time base")
        seconds = float(stream.time_base)
        # Half a frame early, so that rounding cannot land behind the key frame that is needed.
        container.seek(max(0, int((first - 0.5) / fps / seconds)), stream=stream)
        for frame in container.decode(stream):
            if frame.pts is None:
                continue
            number = round(frame.pts * seconds * fps)
            if number >= first + count:
                break
            if number >= first:
                pixels: Any = frame.to_ndarray(format="rgb24")
                frames[number] = pixels
    return frames
