"""Faults of what a dataset holds and where it says that it lies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.data.breaking import Random, Wanted, breakage, camera, place
from tests.data.generated import SIZE, Recipe, edit_cell, edit_info, png, tables, to_pictures


@breakage
def a_file_nobody_lists(path: Path, recipe: Recipe, random: Random) -> Wanted:
    """Frames after the index was written, or a camera that is in no description."""
    if random.random() < 0.5:
        table = tables(path)[-1]
        shutil.copy(table, table.with_name("file-777.parquet"))
    else:
        folder = path / f"videos/observation.images.{camera(recipe, random)}"
        shutil.copytree(folder, folder.with_name("observation.images.another"))
    return Wanted("dataset-file-unlisted", "doubt")


@breakage
def a_path_with_more_than_numbers(path: Path, recipe: Recipe, random: Random) -> Wanted:
    key = str(random.choice(["data_path", "video_path"]))
    more = str(random.choice([":0999999999d}", ".__class__}", "!r}", ":>{file_index}}", ":_^3}"]))
    edit_info(path, lambda info: info.update({key: f"{key}/{{chunk_index{more}/file.parquet"}))
    return Wanted("dataset-info-incomplete", "error")


@breakage
def brackets_without_end(path: Path, recipe: Recipe, random: Random) -> Wanted:
    name = str(random.choice(["info", "stats", "libra_edge"]))
    (path / f"meta/{name}.json").write_text(str(random.choice(["[", '{"a":'])) * 100_000)
    return Wanted("dataset-file-corrupt", "error")


@breakage
def a_stored_picture_that_is_none(path: Path, recipe: Recipe, random: Random) -> Wanted:
    """One of all, mostly one that nobody would decode to look at the camera."""
    name, (episode, frame) = camera(recipe, random), place(recipe, random)
    to_pictures(path, name)
    other = png(np.zeros((SIZE, 2 * SIZE, 3), np.uint8))
    ways: list[Callable[[bytes], bytes | None]] = [
        *(lambda content: None, lambda content: b"", lambda content: content[: len(content) // 2]),
        *(lambda content: b"no picture", lambda content: other, lambda content: content[8:]),
    ]
    key, way = f"observation.images.{name}", ways[int(random.integers(len(ways)))]

    def change(cell: dict[str, bytes]) -> dict[str, bytes | None]:
        return {"bytes": way(cell["bytes"]), "path": None}

    edit_cell(path, key, episode, frame, change)
    return Wanted("dataset-picture-corrupt", "error", key, None, episode, frame)
