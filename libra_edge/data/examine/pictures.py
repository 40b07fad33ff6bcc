"""Pictures: every frame of every camera at its time, of the size it says, of the right camera."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.data.examine.stored_pictures import check_stored_pictures
from libra_edge.data.examine.tables import TOLERANCE_S
from libra_edge.data.findings import Finding, doubt, error, from_error, note
from libra_edge.data.lerobot.dataset import Dataset, EpisodeInfo
from libra_edge.data.lerobot.layout import Clip, Row, camera_name
from libra_edge.data.lerobot.match import named_size
from libra_edge.data.types import UInt8Array
from libra_edge.data.video import frame_times
from libra_edge.errors import InputError

# Episodes of which pictures are decoded, and pictures of each: enough to see what a camera shows.
_EPISODES, _PICTURES = 4, 2
_DARK = 2
# Mean colours this far apart, in [0, 1], tell one camera's statistics from another's.
_TELLING, _SURE = 0.03, 0.1


def check_pictures(dataset: Dataset, keys: Sequence[str]) -> Iterator[Finding]:
    """Clips against the videos' own index and stored pictures by their ends, then some decoded."""
    means: dict[str, npt.NDArray[np.float64]] = {}
    seen: dict[str, list[UInt8Array]] = {}
    for key in keys:
        if dataset.layout.features[key]["dtype"] == "video":
            found = list(_clips(dataset, key))
        else:
            found = list(check_stored_pictures(dataset, key))
        yield from found
        if any(finding.level == "error" for finding in found):
            continue
        try:
            samples = list(_sample(dataset, key))
        except InputError as caught:
            yield from_error(caught, feature=key)
            continue
        yield from _seen(dataset, key, samples)
        seen[key] = [picture for _, _, picture in samples]
        means[key] = np.mean([picture.mean(axis=(0, 1)) / 255 for _, _, picture in samples], axis=0)
    yield from _alike(seen)
    yield from _swapped(dataset, means)


def _clips(dataset: Dataset, key: str) -> Iterator[Finding]:
    by_file: dict[Path, list[tuple[Row, Clip]]] = {}
    for row in dataset.layout.rows:
        by_file.setdefault(row.clips[key].path, []).append((row, row.clips[key]))
    for path, clips in by_file.items():
        try:
            times_s = frame_times(path)
        except InputError as caught:
            yield from_error(caught, feature=key, episode=clips[0][0].index)
            continue
        clips.sort(key=lambda pair: pair[1].start_s)
        for row, clip in clips:
            yield from _frames(dataset, key, row, clip, times_s)
        yield from _neighbours(dataset, key, clips, times_s)


def _frames(
    dataset: Dataset, key: str, row: Row, clip: Clip, times_s: npt.NDArray[np.float64]
) -> Iterator[Finding]:
    """LeRobot asks for a frame within its tolerance of start + timestamp, and so do we."""
    wanted = clip.start_s + np.arange(row.length) / dataset.fps
    right = np.searchsorted(times_s, wanted).clip(1, max(len(times_s) - 1, 1))
    near = [times_s[(right - back).clip(0, len(times_s) - 1)] for back in (0, 1)]
    off = np.minimum(*(np.abs(times - wanted) for times in near))
    wrong = np.flatnonzero(~(off <= TOLERANCE_S + wanted * np.finfo(np.float32).eps))
    where: dict[str, Any] = {"feature": key, "episode": row.index}
    if len(wrong):
        at = int(wrong[0])
        step = 1 / dataset.fps
        short = wanted[at] > times_s[-1] + step / 2
        code = "video-too-short" if short else "dataset-video-offset"
        ending = (
            f"it ends at {times_s[-1]:.6g} s"
            if short
            else (f"the nearest is {off[at] * dataset.fps:.2g} frames away")
        )
        yield error(
            code,
            f"{key} of episode {row.index}, frame {at}: {clip.path} has no frame at "
            f"{wanted[at]:.6g} s, {ending} ({len(wrong)} of {row.length} frames are off).",
            "Copy the dataset again, complete."
            if short
            else "Correct from_timestamp in meta/episodes, or write the dataset again: the "
            "pictures would not belong to the states and actions.",
            frame=at,
            **where,
        )
    elif abs(clip.end_s - clip.start_s - row.length / dataset.fps) > 0.5 / dataset.fps:
        yield doubt(
            "dataset-video-offset",
            f"{key} of episode {row.index} is said to run from {clip.start_s:.6g} to "
            f"{clip.end_s:.6g} s; {row.length} frames take {row.length / dataset.fps:.6g} s.",
            "Check from_timestamp and to_timestamp in meta/episodes.",
            **where,
        )


def _neighbours(
    dataset: Dataset, key: str, clips: list[tuple[Row, Clip]], times_s: npt.NDArray[np.float64]
) -> Iterator[Finding]:
    half = 0.5 / dataset.fps
    starts = [clip.start_s for _, clip in clips]
    ends = [clip.start_s + row.length / dataset.fps for row, clip in clips]
    if starts[0] > times_s[0] + half:
        yield _unused(dataset, key, clips[0][0], starts[0] - times_s[0], "before")
    for (before, after), end, start in zip(pairwise(clips), ends, starts[1:], strict=False):
        if start < end - half:
            yield error(
                "dataset-video-overlap",
                f"{key}: episode {after[0].index} begins at {start:.6g} s of {after[1].path}, "
                f"where episode {before[0].index} goes on to {end:.6g} s.",
                "Correct from_timestamp in meta/episodes, or write the dataset again: two "
                "episodes cannot share pictures.",
                feature=key,
                episode=after[0].index,
                frame=0,
            )
        elif start > end + half:
            yield _unused(dataset, key, after[0], start - end, "before")
    left = times_s[-1] + 2 * half - ends[-1]
    if left > 3 * half:
        yield note(
            "dataset-video-gap",
            f"{key}: {clips[-1][1].path} goes on for {left * dataset.fps:.0f} frames after its "
            "last episode.",
            "Nothing, if episodes were dropped there.",
            feature=key,
        )


def _unused(dataset: Dataset, key: str, row: Row, gap_s: float, side: str) -> Finding:
    return doubt(
        "dataset-video-gap",
        f"{key}: {gap_s * dataset.fps:.0f} frames of video {side} episode {row.index} belong to no "
        "episode: it may begin too late.",
        "Check from_timestamp in meta/episodes, unless episodes were dropped there.",
        feature=key,
        episode=row.index,
        frame=0,
    )


def _sample(dataset: Dataset, key: str) -> Iterator[tuple[EpisodeInfo, int, UInt8Array]]:
    count = len(dataset.episodes)
    numbers = sorted({round(i * (count - 1) / (_EPISODES - 1)) for i in range(_EPISODES)})
    for number in numbers:
        info = dataset.episodes[number]
        for step in sorted({0, (info.length - 1) // _PICTURES, info.length - 1}):
            for picture in info.pictures[key].read(dataset.fps, None, step, 1):
                yield info, step, picture


def _seen(
    dataset: Dataset, key: str, samples: Sequence[tuple[EpisodeInfo, int, UInt8Array]]
) -> Iterator[Finding]:
    wanted = named_size(dataset.layout.features[key])
    for info, step, picture in samples:
        if picture.shape[:2] != wanted:
            yield error(
                "dataset-image-size",
                f"{key} of episode {info.index}, frame {step} is {picture.shape[0]} x "
                f"{picture.shape[1]}; meta/info.json says {wanted[0]} x {wanted[1]}.",
                "Correct shape and names of the feature in meta/info.json, or copy the dataset "
                "again.",
                feature=key,
                episode=info.index,
                frame=step,
            )
            return
    pictures = [picture for _, _, picture in samples]
    if all(int(picture.max()) <= _DARK for picture in pictures):
        yield doubt(
            "dataset-camera-dark",
            f"{key}: {len(pictures)} pictures from all over the dataset are black.",
            "Check that the camera was uncovered and recorded.",
            feature=key,
        )
    elif len(pictures) > 2 and all(np.array_equal(pictures[0], other) for other in pictures[1:]):
        yield doubt(
            "dataset-camera-frozen",
            f"{key}: {len(pictures)} pictures from all over the dataset are the same.",
            "Check that the camera did not hang while recording.",
            feature=key,
        )


def _alike(seen: dict[str, list[UInt8Array]]) -> Iterator[Finding]:
    """Two cameras that show the same: one was recorded twice, the other not at all."""
    for a, b in combinations(seen, 2):
        if all(np.array_equal(one, other) for one, other in zip(seen[a], seen[b], strict=True)):
            yield doubt(
                "dataset-cameras-alike",
                f"{camera_name(a)} and {camera_name(b)} show the same pictures.",
                "Check the recording: one camera may have been recorded under both names.",
                feature=b,
            )


def _swapped(dataset: Dataset, means: dict[str, npt.NDArray[np.float64]]) -> Iterator[Finding]:
    """Two cameras whose pictures fit each other's statistics."""
    stored = {key: mean for key in means if (mean := _stored_mean(dataset, key)) is not None}
    for a, b in combinations(stored, 2):
        straight = _apart(means[a], stored[a]) + _apart(means[b], stored[b])
        crossed = _apart(means[a], stored[b]) + _apart(means[b], stored[a])
        if straight < _TELLING or crossed > straight / 4:
            continue
        report = error if straight > _SURE and crossed < straight / 10 else doubt
        yield report(
            "dataset-cameras-swapped",
            f"the pictures of {camera_name(a)} fit the statistics of {camera_name(b)}, and the "
            "other way round: the cameras may be swapped.",
            "Look at both; exchange their folders, or write meta/stats.json again.",
            feature=a,
        )


def _stored_mean(dataset: Dataset, key: str) -> npt.NDArray[np.float64] | None:
    feature = dataset.layout.stats.get(key)
    mean = feature.get("mean") if isinstance(feature, dict) else None
    try:
        value = np.asarray(mean, np.float64).ravel()
    except (TypeError, ValueError):
        return None
    return value if value.shape == (3,) and np.isfinite(value).all() and value.max() <= 1 else None


def _apart(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    return float(np.abs(a - b).max())
