"""Camera recordings in mp4 files: written frame by frame, read by frame number."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from libra_edge.data.types import UInt8Array
from libra_edge.errors import InputError
from libra_edge.paths import StrPath

# SVT-AV1 prints its configuration for every file unless told to report errors only.
os.environ.setdefault("SVT_LOG", "1")

import av
import av.error
from av.video.reformatter import Interpolation

Codec = Literal["av1", "lossless", "film"]
Size = tuple[int, int]
_PICTURES = {b"\x89PNG": "png", b"\xff\xd8\xff": "mjpeg"}
_COLOUR = frozenset({"rgb24", "pal8", "yuvj420p", "yuvj422p", "yuvj444p", "yuv420p"})

# "av1" is LeRobot's convention and lossy (subsampled colour). "lossless" keeps every pixel at 3 to
# 5 times the size, for simulators: what is learnt from is then exactly what the robot sees later.
# A key frame every 8 frames bounds the cost of reading one frame.
_ENCODERS: dict[Codec, tuple[str, str, dict[str, str]]] = {
    "av1": (
        "libsvtav1",
        "yuv420p",
        {"crf": "18", "preset": "10", "g": "8", "svtav1-params": "lp=1"},
    ),
    # What every player shows, to look at and not to learn from.
    "film": ("libx264", "yuv420p", {"crf": "20", "preset": "veryfast"}),
    "lossless": ("libx264rgb", "rgb24", {"qp": "0", "preset": "veryfast", "g": "8"}),
}


class VideoWriter:
    """One mp4 file of a fixed frame rate.

    Args:
        path: file to write, `str` or `Path`.
        fps: frames per second.
        height: pixels.
        width: pixels.
        codec: "av1", "lossless" or "film".
    """

    def __init__(self, path: StrPath, fps: int, height: int, width: int, codec: Codec) -> None:
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
        "video.codec": {"av1": "av1", "lossless": "h264", "film": "h264"}[codec],
        "video.pix_fmt": {"av1": "yuv420p", "lossless": "gbrp", "film": "yuv420p"}[codec],
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }


def iterate_frames(
    path: StrPath, fps: float, first: int, count: int, size: Size | None = None
) -> Iterator[UInt8Array]:
    """Decode frames [first, first + count) of a video, one at a time.

    Args:
        path: mp4 file.
        fps: frames per second of the recording.
        first: number of the first frame, counted from the beginning of the file.
        count: how many frames.
        size: height and width to resize to, by the mean of the pixels; None leaves them.

    Yields:
        uint8 [height, width, 3].

    Raises:
        InputError: the file is missing, damaged or too short.
    """
    wanted = first
    try:
        for number, frame in _decoded(path, fps, first):
            if number < wanted:
                continue
            if number > wanted:
                break
            if frame.is_corrupt:
                raise IndexError(f"frame {number} is damaged")
            yield _pixels(frame, size)
            wanted += 1
            if wanted == first + count:
                return
    except (av.error.FFmpegError, IndexError) as error:
        raise InputError(
            "video-corrupt", f"{path} cannot be decoded: {error}.", "Copy the dataset again."
        ) from error
    if count > 0:
        raise InputError(
            "video-too-short",
            f"{path} has no frame {wanted} ({first + count - wanted} of {count} are missing).",
            "Copy the dataset again; its index promises more frames than the video holds.",
        )


def read_frames(path: StrPath, fps: float, first: int, count: int) -> UInt8Array:
    """Frames [first, first + count) of a video: uint8 [count, height, width, 3].

    Raises:
        InputError: as `iterate_frames`.
    """
    return np.stack(list(iterate_frames(path, fps, first, count)))


def decode_picture(content: bytes, where: str, size: Size | None = None) -> UInt8Array:
    """Decode a PNG or JPEG file: uint8 [height, width, 3].

    Raises:
        InputError: not such a file, damaged, or not 8-bit colour.
    """
    kind = next((codec for start, codec in _PICTURES.items() if content.startswith(start)), None)
    try:
        if kind is None:
            raise IndexError(f"it begins with {content[:8]!r}")
        context: Any = av.CodecContext.create(kind, "r")
        frames = [*context.decode(av.Packet(content)), *context.decode(None)]
        frame = frames[0]
    except (av.error.FFmpegError, IndexError) as error:
        raise InputError(
            "dataset-picture-corrupt",
            f"{where} is not a whole PNG or JPEG picture: {error}.",
            "Copy the dataset again.",
        ) from error
    if frame.format.name not in _COLOUR:
        raise InputError(
            "dataset-picture-corrupt",
            f"{where} is a picture of the kind {frame.format.name}, not 8-bit colour.",
            "Leave the camera out of the robot's description, or record it in RGB.",
        )
    return _pixels(frame, size)


def frame_times(path: StrPath) -> npt.NDArray[np.float64]:
    """When each frame of a video is shown, in seconds from its beginning, without decoding.

    Returns:
        float64 [frames], ascending.

    Raises:
        InputError: the file is missing, unfinished or damaged.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            packets = [p for p in container.demux(stream) if p.size and p.pts is not None]
            broken = sum(bool(packet.is_corrupt) for packet in packets)
            if stream.time_base is None or not packets or broken:
                raise IndexError(f"{broken} of {len(packets)} frames are damaged")
            seconds = float(stream.time_base)
            return np.sort(np.array([packet.pts for packet in packets]) * seconds)
    except (av.error.FFmpegError, IndexError) as error:
        raise InputError(
            "video-corrupt", f"{path} cannot be read: {error}.", "Copy the dataset again."
        ) from error


def _pixels(frame: Any, size: Size | None) -> UInt8Array:
    if size is None or (frame.height, frame.width) == size:
        pixels: UInt8Array = frame.to_ndarray(format="rgb24")
        return pixels
    # In full resolution first: averaging subsampled colour would shift it.
    full = frame.reformat(format="rgb24")
    small = full.reformat(width=size[1], height=size[0], interpolation=Interpolation.AREA)
    resized: UInt8Array = small.to_ndarray()
    return resized


def _decoded(path: StrPath, fps: float, first: int) -> Iterator[tuple[int, Any]]:
    """Numbered frames of a video from the key frame before `first` on."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if stream.time_base is None:
            raise IndexError("the video has no time base")
        seconds = float(stream.time_base)
        # Half a frame early, so that rounding cannot land behind the key frame that is needed.
        container.seek(max(0, int((first - 0.5) / fps / seconds)), stream=stream)
        for frame in container.decode(stream):
            if frame.pts is not None:
                yield round(frame.pts * seconds * fps), frame
