"""Reading LeRobot v3 datasets: parquet tables and mp4 videos, possibly many files of each."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from libra_edge.data.lerobot_writer import (
    ACTION_KEY,
    EXTRA_PATH,
    IMAGE_PREFIX,
    STATE_KEY,
)
from libra_edge.data.statistics import FeatureStats
from libra_edge.data.types import Episode, FloatArray, Observation, UInt8Array
from libra_edge.data.video import read_frames
from libra_edge.errors import InputError
from libra_edge.paths import StrPath
from libra_edge.policy.config import Embodiment

_EPISODE_KEY = "episode_index"
_COPY_AGAIN = "Copy the dataset again, complete."


@dataclass(frozen=True)
class EpisodeInfo:
    """Where one episode lies and what it shows.

    Attributes:
        index: number of the episode.
        first_frame: dataset-wide number of its first frame.
        length: frames.
        instruction: what the robot was told.
        task: the simulator's name for it, or the instruction.
        success: whether it reached its goal; recordings without the mark count as successful.
        seed: simulator seed, 0 where unknown.
        data_path: its parquet file.
        videos: per camera, its mp4 file and the number of its first frame in it.
    """

    index: int
    first_frame: int
    length: int
    instruction: str
    task: str
    success: bool
    seed: int
    data_path: Path
    videos: tuple[tuple[Path, int], ...]


class Dataset:
    """A LeRobot v3 dataset on disk, read lazily.

    Args:
        path: the folder that holds `meta/`, `data/` and `videos/`.

    Raises:
        InputError: not a dataset, another version, a file or feature missing.
    """

    def __init__(self, path: StrPath) -> None:
        path = Path(path)
        self.path = path
        self._info = _read_info(path)
        self.fps = float(self._info["fps"])
        self._features: dict[str, Any] = self._info["features"]
        self._keys = [
            key
            for key, feature in self._features.items()
            if key.startswith(IMAGE_PREFIX) and feature["dtype"] == "video"
        ]
        self._check_features()
        self.stats = _read_stats(path)
        self.episodes = self._read_episodes()
        self._starts = np.array([episode.first_frame for episode in self.episodes])
        self._rows = lru_cache(maxsize=8)(self._read_rows)
        self._last_episode: tuple[int, Episode] | None = None

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras, in the order of the `images` axis."""
        return tuple(key.removeprefix(IMAGE_PREFIX) for key in self._keys)

    @property
    def state_dim(self) -> int:
        """P, the size of the state vector."""
        return int(self._features[STATE_KEY]["shape"][0])

    @property
    def action_dim(self) -> int:
        """D, the size of the action vector."""
        return int(self._features[ACTION_KEY]["shape"][0])

    @property
    def embodiment(self) -> Embodiment | None:
        """The robot's description, if the dataset was written by Libra Edge."""
        extra = self.path / EXTRA_PATH
        if not extra.is_file():
            return None
        return Embodiment.model_validate(_read_json(extra)["embodiment"])

    @property
    def split(self) -> str | None:
        """`train` or `eval` variations of the tasks, if the dataset says so."""
        extra = self.path / EXTRA_PATH
        recipe = _read_json(extra).get("recipe", {}) if extra.is_file() else {}
        return str(recipe["split"]) if "split" in recipe else None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of all files."""
        digest = hashlib.sha256()
        for file in sorted(p for p in self.path.rglob("*") if p.is_file()):
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            digest.update(f"{file.relative_to(self.path).as_posix()}\0{content}\n".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return sum(episode.length for episode in self.episodes)

    def frame(self, index: int) -> tuple[Observation, FloatArray]:
        """Frame `index` of the whole dataset: its observation and its action, float32 [D]."""
        number, step = self.place(index)
        if self._last_episode is None or self._last_episode[0] != number:
            self._last_episode = (number, self.episode(number))
        episode = self._last_episode[1]
        return episode.observation(step), episode.actions[step]

    def place(self, index: int) -> tuple[int, int]:
        """Episode number and step of frame `index` of the whole dataset."""
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, index - self.episodes[number].first_frame

    def episode(self, number: int) -> Episode:
        """Episode `number`, decoded."""
        info = self.episodes[number]
        return Episode(
            images=self._images(info),
            states=self.vectors(number, STATE_KEY),
            actions=self.vectors(number, ACTION_KEY),
            instruction=info.instruction,
            task=info.task,
            success=info.success,
            seed=info.seed,
        )

    def vectors(self, number: int, key: str) -> FloatArray:
        """States or actions of an episode without decoding its images: float32 [T, P or D]."""
        info = self.episodes[number]
        table, episode_index = self._rows(info.data_path)
        rows: FloatArray = table[key][episode_index == info.index]
        if len(rows) != info.length:
            raise InputError(
                "dataset-truncated",
                f"{info.data_path} holds {len(rows)} of {info.length} frames of episode "
                f"{info.index}.",
                _COPY_AGAIN,
            )
        if not np.isfinite(rows).all():
            step, dim = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
            raise InputError(
                "dataset-not-finite",
                f"{key}[{dim}] of episode {info.index}, frame {step} is {rows[step, dim]}.",
                "Repair or drop the episode; NaN and Inf are never filled in.",
            )
        return rows

    def check_matches(self, embodiment: Embodiment) -> None:
        """Refuse a dataset that was recorded on another robot than `embodiment`."""
        first = self._features[self._keys[0]]
        height, width = _image_size(first)
        facts = [
            ("action dimensions", self.action_dim, len(embodiment.actions)),
            ("state dimensions", self.state_dim, len(embodiment.state)),
            ("cameras", self.cameras, embodiment.cameras),
            ("image size", (height, width), (embodiment.image_height, embodiment.image_width)),
            ("control rate in Hz", self.fps, embodiment.control_hz),
        ]
        for what, found, wanted in facts:
            if found != wanted:
                raise InputError(
                    "dataset-mismatch",
                    f"{what}: {found} in {self.path}, {wanted} in {embodiment.name}.",
                    "Use a dataset recorded on the same robot, or the policy that belongs to it.",
                )

    def _check_features(self) -> None:
        wanted = {STATE_KEY, ACTION_KEY} - self._features.keys()
        if not self._keys:
            wanted.add(IMAGE_PREFIX + "… (video)")
        if wanted:
            raise InputError(
                "dataset-feature-missing",
                f"{self.path} has no {', '.join(sorted(wanted))}; "
                f"it has {', '.join(sorted(self._features))}.",
                "Record states, actions and at least one camera under LeRobot's names.",
            )

    def _images(self, info: EpisodeInfo) -> UInt8Array:
        views = [read_frames(path, self.fps, at, info.length) for path, at in info.videos]
        sizes = {view.shape for view in views}
        if len(sizes) != 1:
            raise InputError(
                "dataset-image-sizes",
                f"the cameras of {self.path} have different sizes: {sorted(sizes)}.",
                "Record or resize all cameras to one size.",
            )
        return np.stack(views, axis=1)

    def _read_rows(self, path: Path) -> tuple[dict[str, FloatArray], npt.NDArray[np.int64]]:
        keys = [STATE_KEY, ACTION_KEY]
        table = _read_table(path, [*keys, _EPISODE_KEY])
        return {key: _matrix(table[key], path) for key in keys}, table[_EPISODE_KEY].to_numpy()

    def _read_episodes(self) -> tuple[EpisodeInfo, ...]:
        paths = sorted((self.path / "meta/episodes").glob("*/*.parquet"))
        if not paths:
            raise _missing(self.path / "meta/episodes/chunk-000/file-000.parquet")
        rows = [row for path in paths for row in _read_table(path).to_pylist()]
        rows.sort(key=lambda row: int(row["episode_index"]))
        episodes: list[EpisodeInfo] = []
        for row in rows:
            first = episodes[-1].first_frame + episodes[-1].length if episodes else 0
            try:
                episodes.append(self._episode_info(row, first))
            except KeyError as error:
                raise InputError(
                    "dataset-column-missing",
                    f"meta/episodes of {self.path} has no column {error}.",
                    "Write the dataset again with LeRobot 0.4 or later.",
                ) from error
        return tuple(episodes)

    def _episode_info(self, row: dict[str, Any], first_frame: int) -> EpisodeInfo:
        instruction = ", ".join(row["tasks"])
        videos = []
        for key in self._keys:
            path = self._file(self._info["video_path"], row, f"videos/{key}", key)
            videos.append((path, round(row[f"videos/{key}/from_timestamp"] * self.fps)))
        return EpisodeInfo(
            index=int(row["episode_index"]),
            first_frame=first_frame,
            length=int(row["length"]),
            instruction=instruction,
            task=row.get("libra_edge/task") or instruction,
            success=bool(row.get("libra_edge/success", True)),
            seed=int(row.get("libra_edge/seed") or 0),
            data_path=self._file(self._info["data_path"], row, "data"),
            videos=tuple(videos),
        )

    def _file(self, pattern: str, row: dict[str, Any], group: str, key: str = "") -> Path:
        name = pattern.format(
            video_key=key,
            chunk_index=int(row[f"{group}/chunk_index"]),
            file_index=int(row[f"{group}/file_index"]),
        )
        path = (self.path / name).resolve()
        if not path.is_relative_to(self.path.resolve()):
            raise InputError(
                "dataset-path-outside",
                f"meta/info.json points outside the dataset: {pattern!r}.",
                "Do not use this dataset.",
            )
        return path


def _read_info(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise InputError("dataset-missing", f"{path} is not a folder.", "Check the path.")
    info = _read_json(path / "meta/info.json")
    missing = {"codebase_version", "fps", "features", "data_path", "video_path"} - info.keys()
    version = str(info.get("codebase_version"))
    if not version.startswith("v3."):
        raise InputError(
            "dataset-version",
            f"{path} is a LeRobot dataset of version {version}; v3.x is read here.",
            "Convert it with LeRobot's own script: "
            "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id …",
        )
    if missing:
        raise InputError(
            "dataset-info-incomplete",
            f"meta/info.json of {path} lacks {', '.join(sorted(missing))}.",
            _COPY_AGAIN,
        )
    return info


def _read_stats(path: Path) -> dict[str, FeatureStats]:
    stats = _read_json(path / "meta/stats.json")
    for key in (STATE_KEY, ACTION_KEY):
        if key not in stats:
            raise InputError(
                "dataset-feature-missing",
                f"meta/stats.json of {path} has no {key}.",
                "Compute the statistics again with LeRobot.",
            )
    return {
        key: {name: np.asarray(value, np.float64) for name, value in feature.items()}
        for key, feature in stats.items()
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(path) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            "dataset-file-corrupt", f"{path} is not JSON: {error}.", _COPY_AGAIN
        ) from error
    if not isinstance(value, dict):
        raise InputError("dataset-file-corrupt", f"{path} holds no object.", _COPY_AGAIN)
    return value


def _read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        # One file at a time: reading a path as a dataset would add partition columns.
        return pq.ParquetFile(path).read(columns=columns)
    except FileNotFoundError:
        raise _missing(path) from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            "dataset-file-corrupt", f"{path} cannot be read: {error}.", _COPY_AGAIN
        ) from error


def _matrix(column: pa.ChunkedArray, path: Path) -> FloatArray:
    """float32 [rows, size] from a column of equally long lists, or of plain numbers."""
    array = column.combine_chunks()
    rows = len(array)
    if hasattr(array, "flatten") and pa.types.is_nested(array.type):
        array = array.flatten()
    values: FloatArray = array.to_numpy(zero_copy_only=False).astype(np.float32)
    if rows == 0 or len(values) % rows:
        raise InputError(
            "dataset-file-corrupt", f"{path} holds vectors of unequal length.", _COPY_AGAIN
        )
    return values.reshape(rows, -1)


def _image_size(feature: dict[str, Any]) -> tuple[int, int]:
    """Height and width; LeRobot names the axes, as some datasets put the channels first."""
    shape, names = feature["shape"], feature.get("names") or ["height", "width", "channels"]
    return int(shape[names.index("height")]), int(shape[names.index("width")])


def _missing(path: Path) -> InputError:
    return InputError("dataset-file-missing", f"{path} does not exist.", _COPY_AGAIN)
