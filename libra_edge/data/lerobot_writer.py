"""Writing LeRobot v3 datasets."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from libra_edge.atomic import new_directory
from libra_edge.data.statistics import FeatureStats, ImageStats, vector_stats
from libra_edge.data.types import Episode
from libra_edge.data.video import Codec, VideoWriter, video_info
from libra_edge.errors import InputError
from libra_edge.paths import StrPath
from libra_edge.policy.config import Embodiment

VERSION = "v3.0"
STATE_KEY = "observation.state"
ACTION_KEY = "action"
IMAGE_PREFIX = "observation.images."
FILE_PATTERN = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{FILE_PATTERN}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{FILE_PATTERN}.mp4"
EPISODES_PATH = f"meta/episodes/{FILE_PATTERN}.parquet"
# Ours, beside LeRobot's files: the robot's description and how the episodes came about.
EXTRA_PATH = "meta/libra_edge.json"
FILES_PER_CHUNK = 1000

_SCALARS = {
    "timestamp": pa.float32(),
    "frame_index": pa.int64(),
    "episode_index": pa.int64(),
    "index": pa.int64(),
    "task_index": pa.int64(),
}


class DatasetWriter:
    """Writes episodes one after another; the folder appears under its name only when complete.

    Use as a context manager. Leaving it with an exception leaves nothing behind.

    Args:
        path: folder to create; must not exist or be empty.
        embodiment: the robot; names, sizes and control rate are taken from it.
        codec: how camera frames are compressed.
        recipe: how the data came about (JSON values), kept in `meta/libra_edge.json`.
        episodes_per_file: when to begin the next parquet and mp4 files.
    """

    def __init__(
        self,
        path: StrPath,
        embodiment: Embodiment,
        codec: Codec = "av1",
        recipe: dict[str, Any] | None = None,
        episodes_per_file: int = 1000,
    ) -> None:
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(
                "output-exists", f"{path} exists already.", "Choose another folder or remove it."
            )
        if round(embodiment.control_hz) != embodiment.control_hz:
            raise InputError(
                "control-rate-not-whole",
                f"LeRobot datasets have whole frames per second, not {embodiment.control_hz}.",
                "Record at a whole rate.",
            )
        self._path = path
        self._embodiment = embodiment
        self._fps = int(embodiment.control_hz)
        self._codec: Codec = codec
        self._recipe = recipe or {}
        self._episodes_per_file = episodes_per_file
        self._keys = [IMAGE_PREFIX + camera for camera in embodiment.cameras]
        self._schema = _data_schema(embodiment)
        self._columns: dict[str, list[np.ndarray[Any, Any]]] = {n: [] for n in self._schema.names}
        self._image_stats = {key: ImageStats() for key in self._keys}
        self._instructions: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._frames = 0
        self._frames_in_file = 0
        self._data: pq.ParquetWriter | None = None
        self._videos: dict[str, VideoWriter] = {}
        self._stack = ExitStack()

    def __enter__(self) -> DatasetWriter:
        self._folder = self._stack.enter_context(new_directory(self._path))
        self._stack.push(self._complete)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _complete(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close_files()
        if kind is None:
            self._finish()

    def add(self, episode: Episode) -> None:
        """Append one episode."""
        self._check(episode)
        if len(self._episodes) % self._episodes_per_file == 0:
            self._close_files()
            self._open_files()
        columns = self._episode_columns(episode)
        assert self._data is not None
        self._data.write_table(_table(columns, self._schema))
        for name, column in columns.items():
            self._columns[name].append(column)
        for view, key in enumerate(self._keys):
            self._videos[key].write(episode.images[:, view])
            self._image_stats[key].add(episode.images[:, view])
        self._episodes.append(self._episode_row(episode))
        self._frames += len(episode)
        self._frames_in_file += len(episode)

    def _check(self, episode: Episode) -> None:
        body = self._embodiment
        wanted = {
            "images": (len(body.cameras), body.image_height, body.image_width, 3),
            "states": (len(body.state),),
            "actions": (len(body.actions),),
        }
        for name, shape in wanted.items():
            found = getattr(episode, name).shape[1:]
            if found != shape:
                raise InputError(
                    "episode-mismatch",
                    f"{name} have shape {found} per step; {body.name} has {shape}.",
                    "Record with the same embodiment as the dataset.",
                )

    def _file_index(self) -> tuple[int, int]:
        return divmod(len(self._episodes) // self._episodes_per_file, FILES_PER_CHUNK)

    def _open_files(self) -> None:
        chunk, file = self._file_index()
        body = self._embodiment
        path = self._prepare(DATA_PATH.format(chunk_index=chunk, file_index=file))
        self._data = pq.ParquetWriter(path, self._schema)
        for key in self._keys:
            name = VIDEO_PATH.format(video_key=key, chunk_index=chunk, file_index=file)
            self._videos[key] = VideoWriter(
                self._prepare(name), self._fps, body.image_height, body.image_width, self._codec
            )
        self._frames_in_file = 0

    def _close_files(self) -> None:
        if self._data is not None:
            self._data.close()
        for video in self._videos.values():
            video.close()
        self._data, self._videos = None, {}

    def _prepare(self, name: str) -> Path:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _episode_columns(self, episode: Episode) -> dict[str, np.ndarray[Any, Any]]:
        steps = np.arange(len(episode), dtype=np.int64)
        task = self._instructions.setdefault(episode.instruction, len(self._instructions))
        return {
            STATE_KEY: episode.states,
            ACTION_KEY: episode.actions,
            "timestamp": (steps / self._fps).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full_like(steps, len(self._episodes)),
            "index": steps + self._frames,
            "task_index": np.full_like(steps, task),
        }

    def _episode_row(self, episode: Episode) -> dict[str, Any]:
        chunk, file = self._file_index()
        row = {
            "episode_index": len(self._episodes),
            "tasks": [episode.instruction],
            "length": len(episode),
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + len(episode),
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            "libra_edge/task": episode.task,
            "libra_edge/success": episode.success,
            "libra_edge/seed": episode.seed,
        }
        for key in self._keys:
            row[f"videos/{key}/chunk_index"] = chunk
            row[f"videos/{key}/file_index"] = file
            row[f"videos/{key}/from_timestamp"] = self._frames_in_file / self._fps
            end = self._frames_in_file + len(episode)
            row[f"videos/{key}/to_timestamp"] = end / self._fps
        return row

    def _finish(self) -> None:
        if not self._episodes:
            raise InputError("dataset-empty", "no episode was recorded.", "Record at least one.")
        episodes = self._prepare(EPISODES_PATH.format(chunk_index=0, file_index=0))
        pq.write_table(pa.Table.from_pylist(self._episodes), episodes)
        pq.write_table(_tasks_table(list(self._instructions)), self._folder / "meta/tasks.parquet")
        _write_json(self._folder / "meta/info.json", self._info())
        _write_json(self._folder / "meta/stats.json", self._stats())
        _write_json(
            self._folder / EXTRA_PATH,
            {"embodiment": self._embodiment.model_dump(mode="json"), "recipe": self._recipe},
        )

    def _stats(self) -> dict[str, Any]:
        stats: dict[str, FeatureStats] = {}
        for name, parts in self._columns.items():
            column = np.concatenate(parts)
            stats[name] = vector_stats(column.reshape(len(column), -1))
        stats |= {key: images.result() for key, images in self._image_stats.items()}
        return {
            name: {key: value.tolist() for key, value in feature.items()}
            for name, feature in stats.items()
        }

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": VERSION,
            "robot_type": self._embodiment.name,
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._instructions),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self._fps,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": self._features(),
        }

    def _features(self) -> dict[str, Any]:
        body = self._embodiment
        height, width = body.image_height, body.image_width
        features: dict[str, Any] = {
            STATE_KEY: _vector_feature([dim.name for dim in body.state]),
            ACTION_KEY: _vector_feature([dim.name for dim in body.actions]),
        }
        for key in self._keys:
            features[key] = {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": video_info(self._codec, self._fps, height, width),
            }
        for name, kind in _SCALARS.items():
            features[name] = {"dtype": str(kind).replace("float", "float32"), "shape": [1]}
            features[name]["names"] = None
        return features


def _vector_feature(names: list[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [len(names)], "names": names}


def _data_schema(body: Embodiment) -> pa.Schema:
    fields = [
        pa.field(STATE_KEY, pa.list_(pa.float32(), len(body.state))),
        pa.field(ACTION_KEY, pa.list_(pa.float32(), len(body.actions))),
    ]
    return pa.schema(fields + [pa.field(name, kind) for name, kind in _SCALARS.items()])


def _table(columns: dict[str, np.ndarray[Any, Any]], schema: pa.Schema) -> pa.Table:
    arrays = []
    for field in schema:
        column = columns[field.name]
        if column.ndim == 1 and not pa.types.is_fixed_size_list(field.type):
            arrays.append(pa.array(column, field.type))
        else:
            flat = pa.array(column.ravel(), pa.float32())
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, column.shape[1]))
    return pa.Table.from_arrays(arrays, schema=schema)


def _tasks_table(instructions: list[str]) -> pa.Table:
    """`tasks.parquet` with the instruction as pandas index, which LeRobot looks tasks up by."""

    def column(name: str, kind: str, stored: str) -> dict[str, Any]:
        names = {"name": name, "field_name": name}
        return names | {"pandas_type": kind, "numpy_type": stored, "metadata": None}

    described = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            column("task_index", "int64", "int64"),
            column("task", "unicode", "object"),
        ],
        "pandas_version": "2.0.0",
    }
    table = pa.table(
        {"task_index": pa.array(range(len(instructions)), pa.int64()), "task": instructions}
    )
    return table.replace_schema_metadata({"pandas": json.dumps(described)})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
