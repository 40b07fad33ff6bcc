"""LeRobot datasets made from a few numbers, and broken in one place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from libra_edge.data.lerobot_writer import DatasetWriter
from libra_edge.data.types import Episode
from libra_edge.data.video import VideoWriter, read_frames
from libra_edge.policy.config import ActionDim, Embodiment, StateDim

SIZE = 32
FPS = 20
STATE, ACTION = "observation.state", "action"
CAMERAS = ("top", "wrist", "side")


@dataclass(frozen=True)
class Recipe:
    """A dataset that is right: each camera has its own shade, values stay inside the limits."""

    lengths: tuple[int, ...] = (9, 12, 7)
    cameras: tuple[str, ...] = CAMERAS[:2]
    states: int = 3
    actions: int = 3
    per_file: int = 1000
    seed: int = 0
    words: tuple[str, ...] = ("open the box", "close the box")
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def robot(self) -> Embodiment:
        fields: dict[str, Any] = {
            "name": "generated",
            "control_hz": FPS,
            "cameras": self.cameras,
            "image_height": SIZE,
            "image_width": SIZE,
            "state": tuple(StateDim(name=f"s{i}", unit="rad") for i in range(self.states)),
            "actions": tuple(
                ActionDim(name=f"a{i}", unit="rad", kind="absolute", lower=-3, upper=3)
                for i in range(self.actions)
            ),
        }
        return Embodiment(**(fields | self.changes))

    def episodes(self) -> list[Episode]:
        rng = np.random.default_rng(self.seed)
        return [self._episode(rng, number, length) for number, length in enumerate(self.lengths)]

    def _episode(self, rng: np.random.Generator, number: int, length: int) -> Episode:
        time = np.arange(length)[:, None] / 5 + number
        wave = np.sin(time + np.arange(max(self.states, self.actions)))
        noise = rng.uniform(-0.5, 0.5, (2, *wave.shape))
        size = (self.robot.image_height, self.robot.image_width)
        images = np.zeros((length, len(self.cameras), *size, 3), np.uint8)
        for view in range(len(self.cameras)):
            images[:, view] = 40 + 70 * view + rng.integers(0, 20, (length, 1, 1, 3))
        words = self.words[number % len(self.words)]
        return Episode(
            images=images,
            states=(wave + noise[0])[:, : self.states].astype(np.float32),
            actions=(wave + noise[1])[:, : self.actions].astype(np.float32),
            instruction=words,
            task=words,
            success=True,
            seed=0,
        )


def write(path: Path, recipe: Recipe) -> Path:
    with DatasetWriter(path, recipe.robot, "lossless", {}, recipe.per_file) as writer:
        for episode in recipe.episodes():
            writer.add(episode)
    return path


def edit_json(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    edit(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def edit_info(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    edit_json(path / "meta/info.json", edit)


def edit_robot(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    edit_json(path / "meta/libra_edge.json", lambda content: edit(content["embodiment"]))


def edit_rows(file: Path, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    """Rewrite a parquet file with its rows changed in place."""
    table = pq.ParquetFile(file).read()
    rows = table.to_pylist()
    edit(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file)


def tables(path: Path) -> list[Path]:
    return sorted((path / "data").rglob("*.parquet"))


def videos(path: Path, camera: str) -> list[Path]:
    return sorted((path / f"videos/observation.images.{camera}").rglob("*.mp4"))


def index_file(path: Path) -> Path:
    return path / "meta/episodes/chunk-000/file-000.parquet"


def edit_cell(
    path: Path, column: str, episode: int, frame: int, edit: Callable[[Any], Any]
) -> None:
    """Change one value of a column; vectors are given as lists."""
    for file in tables(path):
        rows = pq.ParquetFile(file).read(columns=["episode_index", "frame_index"]).to_pylist()
        at = [
            i
            for i, row in enumerate(rows)
            if (row["episode_index"], row["frame_index"]) == (episode, frame)
        ]
        if at:

            def change(found: list[dict[str, Any]], place: int = at[0]) -> None:
                found[place][column] = edit(found[place][column])

            edit_rows(file, change)
            return
    raise AssertionError(f"no frame {frame} of episode {episode}")


def edit_columns(
    path: Path, key: str, edit: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
) -> None:
    """Change all rows of a vector feature, file by file; statistics are left as they are."""

    for file in tables(path):

        def change(rows: list[dict[str, Any]]) -> None:
            values = edit(np.array([row[key] for row in rows], np.float64))
            for row, value in zip(rows, values, strict=True):
                row[key] = value.astype(np.float32).tolist()

        edit_rows(file, change)


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    context: Any = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt = pixels.shape[1], pixels.shape[0], "rgb24"
    context.time_base = Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    packets = [*context.encode(frame), *context.encode(None)]
    return b"".join(bytes(packet) for packet in packets)


def to_pictures(path: Path, camera: str) -> None:
    """Move a camera from its videos into the tables, as LeRobot's `use_videos=False` writes it."""
    key = f"observation.images.{camera}"
    for table_file, video in zip(tables(path), videos(path, camera), strict=True):
        table = pq.ParquetFile(table_file).read()
        pixels = read_frames(video, FPS, 0, table.num_rows)
        cells = [{"bytes": png(p), "path": f"frame_{i}.png"} for i, p in enumerate(pixels)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        pq.write_table(table.append_column(key, pa.array(cells, kind)), table_file)
    shutil.rmtree(path / f"videos/{key}")
    edit_info(path, lambda info: info["features"][key].update(dtype="image"))
    file = index_file(path)
    table = pq.ParquetFile(file).read()
    gone = [name for name in table.column_names if name.startswith(f"videos/{key}/")]
    pq.write_table(table.drop_columns(gone), file)


def to_v2(path: Path) -> None:
    """The same dataset in the layout of LeRobot v2.1: one file per episode, JSON lines."""
    index = pq.ParquetFile(index_file(path)).read().to_pylist()
    info = json.loads((path / "meta/info.json").read_text())
    keys = [k for k, f in info["features"].items() if f["dtype"] == "video"]
    rows = [table for file in tables(path) for table in [pq.ParquetFile(file).read()]]
    whole = pa.concat_tables(rows)
    for episode in index:
        number, length = episode["episode_index"], episode["length"]
        part = whole.slice(episode["dataset_from_index"], length)
        file = path / f"data/chunk-000/episode_{number:06d}.parquet"
        pq.write_table(part, file)
        for key in keys:
            chunk = episode[f"videos/{key}/chunk_index"], episode[f"videos/{key}/file_index"]
            source = path / f"videos/{key}/chunk-{chunk[0]:03d}/file-{chunk[1]:03d}.mp4"
            first = round(episode[f"videos/{key}/from_timestamp"] * FPS)
            target = path / f"videos/chunk-000/{key}/episode_{number:06d}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            video = VideoWriter(target, FPS, SIZE, SIZE, "lossless")
            video.write(read_frames(source, FPS, first, length))
            video.close()
    for file in [*tables(path), index_file(path), path / "meta/tasks.parquet"]:
        if file.name.startswith(("file-", "tasks")):
            if file.name == "tasks.parquet":
                tasks = pq.ParquetFile(file).read().to_pylist()
            file.unlink()
    for key in keys:
        shutil.rmtree(path / f"videos/{key}")
    lines = {
        "episodes.jsonl": [
            {"episode_index": e["episode_index"], "tasks": e["tasks"], "length": e["length"]}
            for e in index
        ],
        "tasks.jsonl": [{"task_index": t["task_index"], "task": t["task"]} for t in tasks],
    }
    for name, content in lines.items():
        (path / "meta" / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    (path / "meta/stats.json").unlink()
    edit_info(
        path,
        lambda content: content.update(
            codebase_version="v2.1",
            data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        ),
    )
