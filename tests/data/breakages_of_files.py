"""Faults of files, tables, videos, statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from libra_edge.data.video import VideoWriter
from tests.data.breaking import Random, Wanted, breakage, camera, place, vector
from tests.data.generated import (
    ACTION,
    FPS,
    SIZE,
    STATE,
    Recipe,
    edit_cell,
    edit_info,
    edit_json,
    edit_robot,
    edit_rows,
    index_file,
    tables,
    videos,
)


@breakage
def not_finite(path: Path, recipe: Recipe, random: Random) -> Wanted:
    (key, dim), (episode, frame) = vector(recipe, random), place(recipe, random)
    bad = float(random.choice([np.nan, np.inf, -np.inf]))
    edit_cell(path, key, episode, frame, lambda v: [*v[:dim], bad, *v[dim + 1 :]])
    return Wanted("dataset-not-finite", "error", key, dim, episode, frame)


@breakage
def a_late_frame(path: Path, recipe: Recipe, random: Random) -> Wanted:
    episode, frame = place(recipe, random)
    late = float(random.choice([-1, 1]) * random.uniform(2e-4, 0.9 / FPS))
    edit_cell(path, "timestamp", episode, frame, lambda value: value + late)
    return Wanted("dataset-timestamps", "error", "timestamp", None, episode, frame)


@breakage
def another_rate(path: Path, recipe: Recipe, random: Random) -> Wanted:
    rate = int(random.choice([10, 15, 25, 30, 50]))
    edit_info(path, lambda info: info.update(fps=rate))
    edit_robot(path, lambda robot: robot.update(control_hz=rate))
    return Wanted("dataset-timestamps", "error", "timestamp", None, None, 1)


def shift_clip(path: Path, name: str, episode: int, frames: float) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for end in ("from_timestamp", "to_timestamp"):
            rows[episode][f"videos/observation.images.{name}/{end}"] += frames / FPS

    edit_rows(index_file(path), change)


@breakage
def a_clip_between_frames(path: Path, recipe: Recipe, random: Random) -> Wanted:
    name, episode = camera(recipe, random), int(random.integers(len(recipe.lengths)))
    shift_clip(path, name, episode, float(random.uniform(0.01, 0.99)))
    return Wanted("dataset-video-offset", "error", f"observation.images.{name}", None, episode, 0)


@breakage
def a_clip_whole_frames_late(path: Path, recipe: Recipe, random: Random) -> Wanted:
    name = camera(recipe, random)
    episode = int(random.integers(len(recipe.lengths)))
    shift_clip(path, name, episode, float(random.integers(1, 4)))
    key = f"observation.images.{name}"
    last = episode == len(recipe.lengths) - 1 or (episode + 1) % recipe.per_file == 0
    if last:
        return Wanted("video-too-short", "error", key, None, episode)
    return Wanted("dataset-video-overlap", "error", key, None, episode + 1, 0)


@breakage
def a_clip_whole_frames_early(path: Path, recipe: Recipe, random: Random) -> Wanted:
    name = camera(recipe, random)
    later = [e for e in range(len(recipe.lengths)) if e % recipe.per_file]
    if not later:
        return a_clip_whole_frames_late(path, recipe, random)
    episode = int(random.choice(later))
    shift_clip(path, name, episode, -float(random.integers(1, 4)))
    return Wanted("dataset-video-overlap", "error", f"observation.images.{name}", None, episode, 0)


def some_file(path: Path, recipe: Recipe, random: Random, *, json_too: bool = True) -> Path:
    files = [*tables(path), *videos(path, camera(recipe, random)), path / "meta/tasks.parquet"]
    files += [index_file(path)] + [path / "meta/info.json"] * json_too
    return files[int(random.integers(len(files)))]


@breakage
def a_pointer(path: Path, recipe: Recipe, random: Random) -> Wanted:
    some_file(path, recipe, random).write_text(
        "version https://git-lfs.github.com/spec/v1\n"
        f"oid sha256:{random.bytes(32).hex()}\nsize 12345\n"
    )
    return Wanted("dataset-lfs-pointer")


@breakage
def an_unfinished_file(path: Path, recipe: Recipe, random: Random) -> Wanted:
    file = some_file(path, recipe, random, json_too=False)
    whole = file.read_bytes()
    # The index of a parquet and of an mp4 file stands at its end.
    file.write_bytes(whole[: int(random.choice([0, 64, len(whole) // 2, len(whole) - 8]))])
    return Wanted("dataset-file-unfinished")


@breakage
def a_missing_file(path: Path, recipe: Recipe, random: Random) -> Wanted:
    some_file(path, recipe, random).unlink()
    return Wanted("dataset-file-missing")


@breakage
def a_broken_link(path: Path, recipe: Recipe, random: Random) -> Wanted:
    file = some_file(path, recipe, random)
    file.unlink()
    file.symlink_to("../blobs/gone")
    return Wanted("dataset-file-missing")


@breakage
def a_lost_row(path: Path, recipe: Recipe, random: Random) -> Wanted:
    episode, _ = place(recipe, random)
    file = tables(path)[episode // recipe.per_file]
    rows = pq.ParquetFile(file).read()
    of_it = [i for i, n in enumerate(rows["episode_index"].to_pylist()) if n == episode]
    lost = int(random.choice(of_it))
    pq.write_table(pa.concat_tables([rows.slice(0, lost), rows.slice(lost + 1)]), file)
    return Wanted("dataset-truncated", "error", None, None, episode)


@breakage
def rows_in_another_order(path: Path, recipe: Recipe, random: Random) -> Wanted:
    episode, frame = place(recipe, random, first=1)

    def change(rows: list[dict[str, Any]]) -> None:
        at = next(
            i
            for i, row in enumerate(rows)
            if (row["episode_index"], row["frame_index"]) == (episode, frame)
        )
        rows[at - 1], rows[at] = rows[at], rows[at - 1]

    edit_rows(tables(path)[episode // recipe.per_file], change)
    return Wanted("dataset-frame-order", "error", "frame_index", None, episode, frame - 1)


@breakage
def another_picture_size(path: Path, recipe: Recipe, random: Random) -> Wanted:
    key = f"observation.images.{camera(recipe, random)}"
    edit_info(path, lambda info: info["features"][key].update(shape=[SIZE * 2, SIZE * 2, 3]))
    return Wanted("dataset-image-size", "error", key)


def film_again(path: Path, recipe: Recipe, name: str, shade: int | None) -> None:
    for number, file in enumerate(videos(path, name)):
        first = number * recipe.per_file
        count = sum(recipe.lengths[first : first + recipe.per_file])
        video = VideoWriter(file, FPS, SIZE, SIZE, "lossless")
        video.write(np.full((count, SIZE, SIZE, 3), shade, np.uint8))
        video.close()


@breakage
def a_covered_camera(path: Path, recipe: Recipe, random: Random) -> Wanted:
    name = camera(recipe, random)
    film_again(path, recipe, name, 0)
    return Wanted("dataset-camera-dark", "doubt", f"observation.images.{name}")


@breakage
def a_camera_that_hung(path: Path, recipe: Recipe, random: Random) -> Wanted:
    name = camera(recipe, random)
    film_again(path, recipe, name, 50)
    return Wanted("dataset-camera-frozen", "doubt", f"observation.images.{name}")


@breakage
def videos_of_two_cameras_swapped(path: Path, recipe: Recipe, random: Random) -> Wanted:
    a, b = (str(name) for name in random.choice(recipe.cameras, 2, replace=False))
    for one, other in zip(videos(path, a), videos(path, b), strict=True):
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)
    return Wanted("dataset-cameras-swapped")


@breakage
def a_video_too_short(path: Path, recipe: Recipe, random: Random) -> Wanted:
    name = camera(recipe, random)
    file = videos(path, name)[-1]
    first = (len(recipe.lengths) - 1) // recipe.per_file * recipe.per_file
    count = sum(recipe.lengths[first:])
    video = VideoWriter(file, FPS, SIZE, SIZE, "lossless")
    video.write(random.integers(0, 99, (count - 1, SIZE, SIZE, 3), dtype=np.uint8))
    video.close()
    key, last = f"observation.images.{name}", len(recipe.lengths) - 1
    return Wanted("video-too-short", "error", key, None, last, recipe.lengths[-1] - 1)


@breakage
def statistics_of_another_dataset(path: Path, recipe: Recipe, random: Random) -> Wanted:
    (key, dim), name = vector(recipe, random), str(random.choice(["min", "max", "mean", "std"]))

    def change(stats: dict[str, Any]) -> None:
        stats[key][name][dim] += float(random.choice([-1, 1]) * random.uniform(0.2, 5))

    edit_json(path / "meta/stats.json", change)
    return Wanted("dataset-statistics-wrong", "doubt", key, dim)


@breakage
def statistics_without_quantiles(path: Path, recipe: Recipe, random: Random) -> Wanted:
    key, _ = vector(recipe, random)
    edit_json(path / "meta/stats.json", lambda stats: [stats[key].pop(q) for q in ("q01", "q99")])
    return Wanted("dataset-statistics-missing", "note", key)


@breakage
def statistics_of_a_feature_missing(path: Path, recipe: Recipe, random: Random) -> Wanted:
    key, _ = vector(recipe, random)
    edit_json(path / "meta/stats.json", lambda stats: stats.pop(key))
    return Wanted("dataset-statistics-missing", "note", key)


@breakage
def statistics_of_another_size(path: Path, recipe: Recipe, random: Random) -> Wanted:
    key, _ = vector(recipe, random)
    edit_json(path / "meta/stats.json", lambda stats: stats[key]["mean"].append(0.0))
    return Wanted("dataset-statistics-wrong", "doubt", key)


@breakage
def totals_of_another_dataset(path: Path, recipe: Recipe, random: Random) -> Wanted:
    name = str(random.choice(["total_frames", "total_episodes"]))
    edit_info(path, lambda info: info.update({name: info[name] + 1}))
    return Wanted("dataset-totals", "doubt")


@breakage
def an_episode_listed_twice(path: Path, recipe: Recipe, random: Random) -> Wanted:
    edit_rows(index_file(path), lambda rows: rows.append(dict(rows[0])))
    return Wanted("dataset-episode-twice")


@breakage
def an_episode_nobody_lists(path: Path, recipe: Recipe, random: Random) -> Wanted:
    edit_rows(index_file(path), lambda rows: rows.pop())
    # With a file of its own, nothing names its frames.
    alone = (len(recipe.lengths) - 1) % recipe.per_file == 0
    return Wanted("dataset-totals" if alone else "dataset-rows-unlisted", "doubt")


@breakage
def another_task_in_the_index(path: Path, recipe: Recipe, random: Random) -> Wanted:
    episode = int(random.integers(len(recipe.lengths)))
    edit_rows(index_file(path), lambda rows: rows[episode].update(tasks=["sing"]))
    return Wanted("dataset-tasks-differ", "doubt", "task_index", None, episode)


@breakage
def vectors_of_another_size(path: Path, recipe: Recipe, random: Random) -> Wanted:
    key, _ = vector(recipe, random)
    group = "state" if key == STATE else "actions"

    def grow(info: dict[str, Any]) -> None:
        info["features"][key]["shape"][0] += 1
        info["features"][key]["names"].append("more")

    edit_info(path, grow)
    edit_robot(path, lambda robot: robot[group].append(robot[group][-1] | {"name": "more"}))
    return Wanted("dataset-shape", "error", key)


@breakage
def a_column_missing(path: Path, recipe: Recipe, random: Random) -> Wanted:
    name = str(random.choice([STATE, ACTION, "task_index", "episode_index"]))
    file = tables(path)[0]
    pq.write_table(pq.ParquetFile(file).read().drop_columns([name]), file)
    return Wanted("dataset-column-missing")


@breakage
def doubles_for_floats(path: Path, recipe: Recipe, random: Random) -> Wanted:
    key, _ = vector(recipe, random)
    file = tables(path)[-1]
    table = pq.ParquetFile(file).read()
    at = table.column_names.index(key)
    column = pa.array(table[key].to_pylist(), pa.list_(pa.float64()))
    pq.write_table(table.set_column(at, key, column), file)
    return Wanted("dataset-dtype", "doubt", key)


@breakage
def words_for_numbers(path: Path, recipe: Recipe, random: Random) -> Wanted:
    key, _ = vector(recipe, random)
    file = tables(path)[-1]
    table = pq.ParquetFile(file).read()
    at = table.column_names.index(key)
    column = pa.array([["a", "b"]] * table.num_rows)
    pq.write_table(table.set_column(at, key, column), file)
    return Wanted("dataset-dtype")


@breakage
def a_camera_recorded_twice(path: Path, recipe: Recipe, random: Random) -> Wanted:
    a, b = recipe.cameras[:2]
    for one, other in zip(videos(path, a), videos(path, b), strict=True):
        other.write_bytes(one.read_bytes())
    return Wanted("dataset-cameras-alike", "doubt", f"observation.images.{b}")


@breakage
def a_depth_camera(path: Path, recipe: Recipe, random: Random) -> Wanted:
    key = f"observation.images.{camera(recipe, random)}"
    if random.integers(2):
        edit_info(path, lambda info: info["features"][key].update(shape=[SIZE, SIZE, 1]))
    else:
        depth = {"video.is_depth_map": True}
        edit_info(path, lambda info: info["features"][key]["info"].update(depth))
    return Wanted("dataset-mismatch", "error", key)
