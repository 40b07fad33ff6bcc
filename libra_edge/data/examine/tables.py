"""The tables: whole files, every frame there, in order, at its time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.data.findings import Finding, doubt, error, from_error, note
from libra_edge.data.lerobot.dataset import Dataset
from libra_edge.data.lerobot.files import COPY_AGAIN, open_table, read_table, require_whole
from libra_edge.data.lerobot.layout import Layout, Row
from libra_edge.data.lerobot_writer import ACTION_KEY, STATE_KEY
from libra_edge.errors import InputError

# LeRobot's own `tolerance_s`: it refuses a frame that lies further from where it should be.
TOLERANCE_S = 1e-4
_SCALARS = ("episode_index", "frame_index", "timestamp", "index")
_WIDTHS = {"float": "float32", "double": "float64", "halffloat": "float16"}


def check_files(layout: Layout) -> Iterator[Finding]:
    """Every file that the index names is there and was finished."""
    paths = {row.data_path for row in layout.rows}
    paths |= {clip.path for row in layout.rows for clip in row.clips.values()}
    for path in sorted(paths):
        try:
            require_whole(path)
        except InputError as caught:
            yield from_error(caught)
    yield from _unlisted(layout, paths)
    leftover = layout.path / "images"
    if leftover.is_dir() and any(leftover.rglob("episode*")) and layout.version.startswith("v3."):
        yield doubt(
            "dataset-unfinished",
            f"{leftover} still holds pictures: a recording stopped before it was written.",
            "Remove the folder if the episode is not wanted; the dataset is complete without it.",
        )


def _unlisted(layout: Layout, paths: set[Path]) -> Iterator[Finding]:
    """Tables and videos that no episode names: a camera or frames that nobody will read."""
    for folder, suffix in (("data", "parquet"), ("videos", "mp4")):
        extra = sorted(set((layout.path / folder).rglob(f"*.{suffix}")) - paths)
        if extra:
            yield doubt(
                "dataset-file-unlisted",
                f"no episode of {layout.path} names {extra[0].relative_to(layout.path)}"
                + (f" and {len(extra) - 1} more" if len(extra) > 1 else "")
                + ": what it holds is not read.",
                "Copy the dataset again if meta/ is older than it; remove it if it is not wanted.",
            )


def check_tables(dataset: Dataset) -> Iterator[Finding]:
    """Rows against the index, file by file."""
    yield from _totals(dataset.layout)
    rows = sorted(dataset.layout.rows, key=lambda row: (str(row.data_path), row.index))
    for path, group in groupby(rows, lambda row: row.data_path):
        yield from _file(dataset.layout, path, list(group))


def _totals(layout: Layout) -> Iterator[Finding]:
    facts = {
        "total_episodes": len(layout.rows),
        "total_frames": sum(row.length for row in layout.rows),
    }
    for name, found in facts.items():
        said = layout.info.get(name)
        if isinstance(said, int) and said != found:
            yield doubt(
                "dataset-totals",
                f"meta/info.json says {name} {said}; the episodes of {layout.path} are {found}.",
                "Copy the dataset again if part of it is missing; correct the number otherwise.",
            )
    first = 0
    for row in layout.rows:
        if row.span is not None and row.span != (first, first + row.length):
            yield doubt(
                "dataset-index",
                f"episode {row.index} has {row.length} frames and says it is rows "
                f"{row.span[0]} to {row.span[1]}; it should be {first} to {first + row.length}.",
                "Write the dataset again with LeRobot; Libra Edge goes by length.",
                episode=row.index,
            )
            return
        first += row.length


def _file(layout: Layout, path: Path, rows: list[Row]) -> Iterator[Finding]:
    names = open_table(path).schema_arrow.names
    lacking = [name for name in ("episode_index", STATE_KEY, ACTION_KEY) if name not in names]
    if lacking:
        yield error(
            "dataset-column-missing",
            f"{path} has no column {', '.join(lacking)}.",
            "Write the dataset again with LeRobot.",
            feature=lacking[0],
        )
        return
    yield from _dtypes(layout, path)
    table = read_table(path, [name for name in _SCALARS if name in names])
    columns = {name: table[name].to_numpy() for name in table.column_names}
    wrong = [name for name, column in columns.items() if column.dtype.kind not in "iuf"]
    if wrong:
        yield error(
            "dataset-file-corrupt",
            f"{path}: {wrong[0]} holds {table[wrong[0]].type}, not numbers.",
            COPY_AGAIN,
            feature=wrong[0],
        )
        return
    numbers = columns["episode_index"]
    for row in rows:
        places = np.flatnonzero(numbers == row.index)
        yield from _episode(layout, path, row, places, columns)
    unlisted = sorted(set(np.unique(numbers).tolist()) - {row.index for row in layout.rows})
    if unlisted:
        yield doubt(
            "dataset-rows-unlisted",
            f"{path} holds frames of episode {unlisted[0]}, which meta/episodes does not list.",
            "Copy the dataset again, complete; those frames are not used.",
            episode=int(unlisted[0]),
        )


def _dtypes(layout: Layout, path: Path) -> Iterator[Finding]:
    schema = open_table(path).schema_arrow
    for key in (STATE_KEY, ACTION_KEY):
        kind = schema.field(key).type
        while hasattr(kind, "value_type"):
            kind = kind.value_type
        found = _WIDTHS.get(str(kind), str(kind))
        said = str(layout.features[key].get("dtype"))
        if found != said:
            yield doubt(
                "dataset-dtype",
                f"{key} is {said} in meta/info.json and {found} in {path}; it is read as float32.",
                "Write the dataset again with the dtype it has.",
                feature=key,
            )
        elif found != "float32":
            yield note(
                "dataset-dtype",
                f"{key} is {found}; it is read as float32.",
                "Nothing, where 24 bits of precision are enough.",
                feature=key,
            )


def _episode(
    layout: Layout,
    path: Path,
    row: Row,
    places: npt.NDArray[np.int64],
    columns: dict[str, npt.NDArray[Any]],
) -> Iterator[Finding]:
    where: dict[str, Any] = {"episode": row.index}
    if len(places) != row.length:
        yield error(
            "dataset-truncated",
            f"{path} holds {len(places)} of {row.length} frames of episode {row.index}.",
            COPY_AGAIN,
            **where,
        )
        return
    steps = np.arange(row.length)
    if "frame_index" in columns:
        wrong = np.flatnonzero(columns["frame_index"][places] != steps)
        if len(wrong):
            at = int(wrong[0])
            yield error(
                "dataset-frame-order",
                f"frame_index of episode {row.index} is {columns['frame_index'][places[at]]} at "
                f"frame {at} ({len(wrong)} of {row.length} frames are out of order).",
                "Sort the frames by frame_index, or drop the episode if some are missing.",
                feature="frame_index",
                frame=at,
                **where,
            )
            return
    if np.any(np.diff(places) != 1):
        yield error(
            "dataset-frame-order",
            f"the frames of episode {row.index} do not stand together in {path}.",
            "Write the dataset again with LeRobot, an episode after the other.",
            **where,
        )
        return
    if "timestamp" in columns:
        yield from _times(layout, row, columns["timestamp"][places].astype(np.float64))


def _times(layout: Layout, row: Row, times_s: npt.NDArray[np.float64]) -> Iterator[Finding]:
    wanted = np.arange(row.length) / layout.fps
    # Timestamps are stored as float32.
    tolerance = TOLERANCE_S + wanted * np.finfo(np.float32).eps
    wrong = np.flatnonzero(~(np.abs(times_s - wanted) <= tolerance))
    if not len(wrong):
        return
    at = int(wrong[0])
    pace = float(np.median(np.diff(times_s))) if row.length > 1 else 0.0
    rate = f"; they run at {1 / pace:.4g} Hz" if pace > 0 else ""
    yield error(
        "dataset-timestamps",
        f"timestamp of episode {row.index}, frame {at} is {times_s[at]:.6g} s; at "
        f"{layout.fps:g} frames per second it is {wanted[at]:.6g} s "
        f"({len(wrong)} of {row.length} frames are off{rate}).",
        "Correct fps in meta/info.json if the rate is another; record again, or drop the episode, "
        "if frames were lost.",
        feature="timestamp",
        episode=row.index,
        frame=at,
    )
