"""The files of a LeRobot dataset: read, or refused with what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from libra_edge.data.types import FloatArray
from libra_edge.errors import InputError
from libra_edge.paths import StrPath

COPY_AGAIN = "Copy the dataset again, complete."
_LFS_START = b"version https://git-lfs.github.com/spec/"
_PARQUET_MAGIC = b"PAR1"
# Rows of encoded pictures held at a time.
_BATCH_ROWS = 16


def missing(path: Path) -> InputError:
    """The error for a file that is not there, or a link that leads nowhere."""
    if path.is_symlink():
        return InputError(
            "dataset-file-missing",
            f"{path} is a link to {path.readlink()}, which does not exist.",
            "Copy the dataset with its links followed (cp -L, rsync -L), or download it again.",
        )
    return InputError("dataset-file-missing", f"{path} does not exist.", COPY_AGAIN)


def require_whole(path: StrPath) -> None:
    """Refuse what is plainly not the file it should be.

    Raises:
        InputError: missing, a Git LFS pointer, empty, or a parquet or mp4 file never finished.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(64)
            stream.seek(-min(size, 4), 2)
            end = stream.read(4)
    except FileNotFoundError:
        raise missing(path) from None
    except OSError as error:
        raise InputError(
            "dataset-file-corrupt", f"{path} cannot be read: {error.strerror}.", COPY_AGAIN
        ) from None
    if start.startswith(_LFS_START):
        raise InputError(
            "dataset-lfs-pointer",
            f"{path} is a Git LFS pointer ({size} bytes), not the file it stands for.",
            "Run `git lfs pull` in the clone, or download the dataset with `hf download`.",
        )
    parquet_cut = start.startswith(_PARQUET_MAGIC) and end != _PARQUET_MAGIC
    if size == 0 or parquet_cut or (start[4:8] == b"ftyp" and not _has_index(path)):
        raise InputError(
            "dataset-file-unfinished",
            f"{path} ({size} bytes) was never finished: " + _what_lacks(size, parquet_cut),
            "Copy it again; if the recording itself stopped there, record with a finalize() at "
            "the end, or drop the episodes of this file.",
        )


def _what_lacks(size: int, parquet_cut: bool) -> str:
    if size == 0:
        return "it is empty."
    return "its footer is missing." if parquet_cut else "its index (moov) is missing."


def _has_index(path: Path) -> bool:
    """Whether an mp4 file holds a whole `moov` box: what decoders need first."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        at = 0
        while at + 8 <= size:
            stream.seek(at)
            head = stream.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if kind == b"moov":
                return at + length <= size
            if length < 8:
                return False
            at += length
    return False


def read_json(path: StrPath) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: missing, a pointer, not JSON, not an object.
    """
    require_whole(path)
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            "dataset-file-corrupt", f"{path} is not JSON: {error}.", COPY_AGAIN
        ) from error
    if not isinstance(value, dict):
        raise InputError("dataset-file-corrupt", f"{path} holds no object.", COPY_AGAIN)
    return value


def read_json_lines(path: StrPath) -> list[dict[str, Any]]:
    """The objects of a file with one on each line.

    Raises:
        InputError: missing, a pointer, a line that is no object.
    """
    require_whole(path)
    rows = []
    try:
        for line in Path(path).read_text(encoding="utf-8-sig").splitlines():
            if line.strip():
                rows.append(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise InputError(
            "dataset-file-corrupt", f"{path} is not JSON lines: {error}.", COPY_AGAIN
        ) from error
    if not all(isinstance(row, dict) for row in rows):
        raise InputError("dataset-file-corrupt", f"{path} holds a line without object.", COPY_AGAIN)
    return rows


def open_table(path: StrPath) -> pq.ParquetFile:
    """A parquet file, its footer read.

    Raises:
        InputError: missing, a pointer, unfinished, damaged.
    """
    require_whole(path)
    try:
        # One file at a time: reading a path as a dataset would add partition columns.
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(path, error) from error


def read_table(path: StrPath, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a parquet file.

    Raises:
        InputError: as `open_table`, or a column is missing.
    """
    table = open_table(path)
    lacking = sorted(set(columns or ()) - set(table.schema_arrow.names))
    if lacking:
        raise InputError(
            "dataset-column-missing",
            f"{path} has no column {', '.join(lacking)}.",
            "Write the dataset again with LeRobot.",
        )
    try:
        return table.read(columns=list(columns) if columns is not None else None)
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(path, error) from error


def read_cells(path: StrPath, column: str, first: int, count: int) -> Iterator[Any]:
    """Values of one column in rows [first, first + count), a few in memory at a time.

    Raises:
        InputError: as `read_table`.
    """
    table = open_table(path)
    at, end = 0, first + count
    try:
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if at < end and at + rows > first:
                start = at
                for batch in table.iter_batches(_BATCH_ROWS, [group], [column]):
                    low, high = max(first - start, 0), min(end - start, batch.num_rows)
                    start += batch.num_rows
                    if low < high:
                        yield from batch.column(0).slice(low, high - low).to_pylist()
            at += rows
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(path, error) from error


def matrix(column: pa.ChunkedArray, path: StrPath, name: str) -> FloatArray:
    """float32 [rows, size] from a column of equally long lists, or of plain numbers.

    Raises:
        InputError: not numbers, or lists of unequal length.
    """
    array = column.combine_chunks()
    rows = len(array)
    empty = 0
    while pa.types.is_nested(array.type) and hasattr(array, "flatten"):
        lengths = pc.list_value_length(array).unique().drop_null().to_pylist()
        empty += array.null_count
        if len(lengths) > 1:
            raise InputError(
                "dataset-file-corrupt",
                f"{path}: {name} holds vectors of unequal length: {sorted(lengths)[:4]}.",
                COPY_AGAIN,
            )
        array = array.flatten()
    if empty + array.null_count:
        raise InputError(
            "dataset-not-finite",
            f"{path}: {name} is empty in {empty + array.null_count} places.",
            "Repair or drop those frames; nothing is filled in.",
        )
    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise InputError(
            "dataset-dtype",
            f"{path}: {name} holds {kind}, not numbers.",
            "Record states and actions as float32.",
        )
    values: FloatArray = array.to_numpy(zero_copy_only=False).astype(np.float32)
    if rows == 0:
        raise InputError("dataset-file-corrupt", f"{path} holds no rows.", COPY_AGAIN)
    return values.reshape(rows, -1)


def _corrupt(path: StrPath, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError("dataset-file-corrupt", f"{path} cannot be read: {reason}.", COPY_AGAIN)
