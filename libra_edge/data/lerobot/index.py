"""Reading `meta/` of a LeRobot dataset: v3 (many episodes a file) and v2 (one file an episode)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Any

import pyarrow as pa

from libra_edge.data.lerobot.files import (
    COPY_AGAIN,
    missing,
    read_json,
    read_json_lines,
    read_table,
)
from libra_edge.data.lerobot.layout import PICTURE_DTYPES, Clip, Layout, Row
from libra_edge.data.lerobot_writer import ACTION_KEY, IMAGE_PREFIX, STATE_KEY
from libra_edge.errors import InputError
from libra_edge.paths import StrPath

# Digits of a number in a path, as LeRobot writes them.
_WIDTH = re.compile(r"|0?\d{1,2}d?")
_WRITE_AGAIN = "Write the dataset again with LeRobot 0.4 or later."


def read_layout(path: StrPath) -> Layout:
    """Read `meta/` of a dataset.

    Raises:
        InputError: not a dataset, of another version, or a file, key or feature is missing.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError("dataset-missing", f"{path} is not a folder.", "Check the path.")
    info = read_json(path / "meta/info.json")
    version = str(info.get("codebase_version"))
    if not version.startswith(("v2.", "v3.")):
        raise InputError(
            "dataset-version",
            f"{path} is a LeRobot dataset of version {version}; v2.x and v3.x are read here.",
            "Convert it with LeRobot's own scripts, or use a newer Libra Edge for a newer version.",
        )
    wanted = {"fps", "features", "data_path"}
    if any(_dtype(feature) == "video" for feature in _features(info).values()):
        wanted.add("video_path")
    lacking = wanted - {key for key, value in info.items() if value is not None}
    if lacking:
        raise InputError(
            "dataset-info-incomplete",
            f"meta/info.json of {path} lacks {', '.join(sorted(lacking))}.",
            COPY_AGAIN,
        )
    _check_features(path, info)
    read = _read_v3 if version.startswith("v3.") else _read_v2
    rows, tasks = read(path, info)
    _check_rows(path, rows)
    stats = path / "meta/stats.json"
    return Layout(
        path=path,
        version=version,
        info=info,
        fps=_fps(path, info),
        features=_features(info),
        rows=tuple(rows),
        tasks=tasks,
        stats=read_json(stats) if stats.exists() or stats.is_symlink() else {},
    )


def _features(info: Mapping[str, Any]) -> dict[str, Any]:
    features = info.get("features")
    return features if isinstance(features, dict) else {}


def _dtype(feature: Any) -> Any:
    return feature.get("dtype") if isinstance(feature, dict) else None


def _fps(path: Path, info: Mapping[str, Any]) -> float:
    fps = info["fps"]
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= 10_000:
        raise InputError(
            "dataset-info-incomplete",
            f"meta/info.json of {path} gives fps as {fps!r}.",
            "Write the rate the dataset was recorded at, in frames per second.",
        )
    return float(fps)


def _check_features(path: Path, info: Mapping[str, Any]) -> None:
    features = _features(info)
    lacking = sorted({STATE_KEY, ACTION_KEY} - features.keys())
    if not any(_dtype(feature) in PICTURE_DTYPES for feature in features.values()):
        lacking.append(IMAGE_PREFIX + "… (video or image)")
    if lacking:
        raise InputError(
            "dataset-feature-missing",
            f"{path} has no {', '.join(lacking)}; it has {', '.join(sorted(features))}.",
            "Record states, actions and at least one camera under LeRobot's names.",
        )
    for key, feature in features.items():
        shape = feature.get("shape") if isinstance(feature, dict) else None
        if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
            raise InputError(
                "dataset-info-incomplete",
                f"meta/info.json of {path}: feature {key} has the shape {shape!r}.",
                COPY_AGAIN,
            )


def _check_rows(path: Path, rows: list[Row]) -> None:
    rows.sort(key=lambda row: row.index)
    if not rows:
        raise InputError(
            "dataset-empty", f"{path} has no episodes.", "Record some, or copy the dataset again."
        )
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before.index == row.index:
            raise InputError(
                "dataset-episode-twice",
                f"meta/episodes of {path} lists episode {row.index} twice.",
                "Write the dataset again: two recordings may have been merged by hand.",
            )
        if row.length < 1:
            raise InputError(
                "episode-length",
                f"episode {row.index} of {path} has {row.length} frames.",
                "Drop the episode.",
            )


def _read_v3(path: Path, info: Mapping[str, Any]) -> tuple[list[Row], dict[int, str]]:
    files = sorted((path / "meta/episodes").glob("*/*.parquet"))
    if not files:
        raise missing(path / "meta/episodes/chunk-000/file-000.parquet")
    try:
        rows = [_v3_row(path, info, row) for file in files for row in _without_stats(file)]
    except KeyError as error:
        raise InputError(
            "dataset-column-missing",
            f"meta/episodes of {path} has no column {error}.",
            _WRITE_AGAIN,
        ) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            "dataset-file-corrupt",
            f"meta/episodes of {path} holds an empty or unreadable value: {error}.",
            COPY_AGAIN,
        ) from error
    table = read_table(path / "meta/tasks.parquet")
    if "task_index" not in table.column_names:
        raise InputError(
            "dataset-column-missing",
            f"meta/tasks.parquet of {path} has no task_index.",
            _WRITE_AGAIN,
        )
    # The instruction is pandas' index, which is stored under whatever name it had.
    texts = [f.name for f in table.schema if _is_text(f.type)]
    if len(texts) != 1:
        raise InputError(
            "dataset-column-missing",
            f"meta/tasks.parquet of {path} has {len(texts)} columns of text; one is needed.",
            _WRITE_AGAIN,
        )
    if not pa.types.is_integer(table["task_index"].type):
        raise InputError(
            "dataset-file-corrupt",
            f"task_index in meta/tasks.parquet of {path} holds {table['task_index'].type}.",
            COPY_AGAIN,
        )
    numbers, words = table["task_index"].to_pylist(), table[texts[0]].to_pylist()
    return rows, {int(n): w or "" for n, w in zip(numbers, words, strict=True) if n is not None}


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _without_stats(file: Path) -> list[dict[str, Any]]:
    table = read_table(file)
    kept = [name for name in table.column_names if not name.startswith("stats/")]
    rows: list[dict[str, Any]] = table.select(kept).to_pylist()
    return rows


def _v3_row(path: Path, info: Mapping[str, Any], row: dict[str, Any]) -> Row:
    clips = {}
    for key, feature in _features(info).items():
        if _dtype(feature) == "video":
            group = f"videos/{key}"
            clips[key] = Clip(
                _place(path, info["video_path"], row, group, key),
                _seconds(row[f"{group}/from_timestamp"]),
                _seconds(row[f"{group}/to_timestamp"]),
            )
    first, end = row.get("dataset_from_index"), row.get("dataset_to_index")
    return Row(
        index=int(row["episode_index"]),
        length=int(row["length"]),
        tasks=_instructions(row["tasks"]),
        data_path=_place(path, info["data_path"], row, "data"),
        clips=clips,
        span=None if first is None or end is None else (int(first), int(end)),
        extra={k: v for k, v in row.items() if k.startswith("libra_edge/")},
    )


def _seconds(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{number} is no time in a video")
    return number


def _instructions(tasks: Any) -> tuple[str, ...]:
    """LeRobot writes a list; other tools a plain string."""
    if isinstance(tasks, str):
        return (tasks,)
    return tuple(str(task) for task in tasks or ())


def _place(path: Path, pattern: str, row: Mapping[str, Any], group: str, key: str = "") -> Path:
    return _inside(
        path,
        pattern,
        video_key=key,
        chunk_index=int(row[f"{group}/chunk_index"]),
        file_index=int(row[f"{group}/file_index"]),
    )


def _inside(path: Path, pattern: str, **values: Any) -> Path:
    """The file a pattern of `info.json` names; links inside the dataset may lead anywhere."""
    try:
        for _, key, width, conversion in Formatter().parse(pattern):
            plain = conversion is None and _WIDTH.fullmatch(width or "")
            if key not in (None, *values) or not plain:
                raise ValueError
        name = pattern.format(**values)
    except (KeyError, IndexError, ValueError, AttributeError):
        raise InputError(
            "dataset-info-incomplete",
            f"meta/info.json of {path} has the path {pattern!r:.200}.",
            COPY_AGAIN,
        ) from None
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(
            "dataset-path-outside",
            f"meta/info.json points outside the dataset: {pattern!r}.",
            "Do not use this dataset.",
        )
    return path / name


def _read_v2(path: Path, info: Mapping[str, Any]) -> tuple[list[Row], dict[int, str]]:
    try:
        tasks = {
            int(row["task_index"]): str(row["task"])
            for row in read_json_lines(path / "meta/tasks.jsonl")
        }
        rows = [_v2_row(path, info, row) for row in read_json_lines(path / "meta/episodes.jsonl")]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            "dataset-column-missing",
            f"meta/tasks.jsonl or meta/episodes.jsonl of {path} has a line without {error}.",
            COPY_AGAIN,
        ) from error
    return rows, tasks


def _v2_row(path: Path, info: Mapping[str, Any], row: Mapping[str, Any]) -> Row:
    index, length = int(row["episode_index"]), int(row["length"])
    chunk = index // int(info.get("chunks_size") or 1000)
    place = {"episode_chunk": chunk, "episode_index": index}
    clips = {
        key: Clip(
            _inside(path, info["video_path"], video_key=key, **place),
            0.0,
            length / float(info["fps"]),
        )
        for key, feature in _features(info).items()
        if _dtype(feature) == "video"
    }
    return Row(
        index=index,
        length=length,
        tasks=_instructions(row["tasks"]),
        data_path=_inside(path, info["data_path"], **place),
        clips=clips,
    )
