"""Episodes as a film: what the robot saw, what it was told, and how its actions came about."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from libra_edge.atomic import writing
from libra_edge.data.types import FloatArray, Observation, UInt8Array
from libra_edge.data.video import VideoWriter
from libra_edge.errors import InputError
from libra_edge.evaluation.lettering import HEIGHT as LINE
from libra_edge.evaluation.lettering import draw
from libra_edge.evaluation.motion import Moment
from libra_edge.policy.config import Embodiment
from libra_edge.policy.executor import State

if TYPE_CHECKING:
    from libra_edge.evaluation.closed_loop import EpisodeSpec

# Smaller pictures are shown larger, by whole pixels.
_LEAST_HEIGHT, _LEAST_WIDTH = 192, 480
_LINES = 4
_BORDER = 4
# How the border says what the step was: a chunk's first step, another, one that was held.
_BOUNDARY, _RUNNING, _HELD = (255, 200, 0), (0, 110, 0), (220, 0, 0)
_TEXT, _HELD_TEXT = (235, 235, 235), (255, 120, 120)
# How long the last picture of an episode stays.
_LAST_S = 0.5


class Film:
    """A `Watcher` of closed loops that writes an mp4 file; a context manager.

    The cameras stand side by side, at the robot's rate; below them task, seed and instruction, the
    step with its state, the age of the plan and of what the chunk saw, the robot's state, and the
    action. The border is yellow where a chunk begins, red where the robot was held.

    Args:
        path: the file; it is there whole, or as it was before.
        robot: cameras, control rate, names.

    Raises:
        InputError: the name does not end in .mp4, or nothing can be written there.
    """

    def __init__(self, path: Path, robot: Embodiment) -> None:
        if path.suffix.lower() != ".mp4":
            raise InputError(
                "video-format", f"{path} is no name of an mp4 file.", "Name it FILE.mp4."
            )
        if not path.resolve().parent.is_dir():
            raise InputError(
                "folder-missing", f"{path.resolve().parent} does not exist.", "Make it first."
            )
        self._path, self._robot = path, robot
        self._parts = path.with_name(f".{path.name}.{os.getpid()}.mp4")
        self._fps = max(1, round(robot.control_hz))
        self._writer: VideoWriter | None = None
        self._frame: UInt8Array | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file; after an error, leave none."""
        with ExitStack() as last:
            last.callback(self._parts.unlink, missing_ok=True)
            if self._writer is None:
                return
            with writing(self._path):
                self._writer.close()
                if kind is None:
                    self._parts.replace(self._path)

    def begin(self, spec: EpisodeSpec, observation: Observation) -> None:
        """An episode begins."""
        self._title = f"{spec.task} {spec.seed}: {observation.instruction}"
        self._chunk: int | None = None
        self._step = 0

    def step(self, observation: Observation, action: FloatArray, moment: Moment) -> None:
        """A control step; one picture."""
        held = moment.state is not State.RUNNING
        begins = moment.chunk is not None and moment.chunk != self._chunk
        self._chunk = self._chunk if moment.chunk is None else moment.chunk
        colour = _HELD if held else _BOUNDARY if begins else _RUNNING
        frame = self._canvas(observation.images, colour)
        names = self._robot.state, self._robot.actions
        rows = [_numbers(n, v) for n, v in zip(names, (observation.state, action), strict=True)]
        for number, line in enumerate((self._title, self._happened(moment), *rows)):
            top = frame.shape[0] - (_LINES - number) * LINE
            draw(frame, line, top, _BORDER + 2, _HELD_TEXT if held else _TEXT)
        self._frame = frame
        self._step += 1
        self._write(frame)

    def end(self, success: bool) -> None:
        """The episode ended; how it did stays for a moment."""
        if self._frame is None:
            return
        frame = self._frame.copy()
        draw(frame, "SUCCESS" if success else "FAILED", 2 * _BORDER, 2 * _BORDER, _TEXT)
        for _ in range(max(1, round(_LAST_S * self._fps))):
            self._write(frame)
        self._frame = None

    def _happened(self, moment: Moment) -> str:
        def known(name: str, value: int | None) -> str:
            return f"{name} {'-' if value is None else value}"

        return "  ".join(
            (
                f"step {self._step} {moment.state.name}",
                known("chunk", moment.chunk),
                known("plan age", moment.plan_age_steps),
                known("seen", moment.seen_steps),
            )
        )

    def _canvas(self, images: UInt8Array, colour: tuple[int, int, int]) -> UInt8Array:
        """The cameras in a coloured border, and room for the lines."""
        scale = -(-_LEAST_HEIGHT // images.shape[1])
        views = images.repeat(scale, axis=1).repeat(scale, axis=2)
        picture = np.concatenate(list(views), axis=1)
        height = picture.shape[0] + _LINES * LINE + 2 * _BORDER
        width = max(picture.shape[1] + 2 * _BORDER, _LEAST_WIDTH)
        # Encoders take even sizes alone.
        frame: UInt8Array = np.zeros((height + height % 2, width + width % 2, 3), np.uint8)
        frame[: picture.shape[0] + 2 * _BORDER, : picture.shape[1] + 2 * _BORDER] = colour
        frame[_BORDER:, _BORDER:][: picture.shape[0], : picture.shape[1]] = picture
        return frame

    def _write(self, frame: UInt8Array) -> None:
        with writing(self._path):
            if self._writer is None:
                height, width = frame.shape[:2]
                self._writer = VideoWriter(self._parts, self._fps, height, width, "film")
            self._writer.write(frame[None])


def _numbers(dims: object, values: FloatArray) -> str:
    """Names and values of the state or of an action, in one line."""
    pairs = zip(dims, values, strict=True)  # type: ignore[call-overload]
    return "  ".join(f"{dim.name} {value:+.2f}" for dim, value in pairs)
