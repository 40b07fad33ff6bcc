"""A LeRobot dataset on disk, read lazily: v2 and v3, videos and pictures in tables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from libra_edge.data.findings import require
from libra_edge.data.lerobot.files import COPY_AGAIN, matrix, read_json, read_table
from libra_edge.data.lerobot.index import read_layout
from libra_edge.data.lerobot.layout import Layout, Row, camera_name
from libra_edge.data.lerobot.match import match_robot, named_size
from libra_edge.data.lerobot.pictures import Pictures
from libra_edge.data.lerobot.robot import read_robot
from libra_edge.data.lerobot_writer import ACTION_KEY, EXTRA_PATH, STATE_KEY
from libra_edge.data.statistics import FeatureStats, vector_stats
from libra_edge.data.types import Episode, FloatArray, Observation, UInt8Array
from libra_edge.errors import InputError
from libra_edge.paths import StrPath
from libra_edge.policy.config import Embodiment

_EPISODE_KEY, _TASK_KEY = "episode_index", "task_index"


@dataclass(frozen=True)
class EpisodeInfo:
    """Where one episode lies and what it shows.

    Attributes:
        index: number of the episode.
        first_frame: dataset-wide number of its first frame.
        length: frames.
        instruction: what the robot was told at the beginning.
        told: every instruction with the step it begins at; more than one where it changes.
        task: the simulator's name for it, or the instruction.
        success: whether it reached its goal; recordings without the mark count as successful.
        seed: simulator seed, 0 where unknown.
        data_path: its parquet file.
        pictures: by feature, where its pictures are.
    """

    index: int
    first_frame: int
    length: int
    instruction: str
    told: tuple[tuple[int, str], ...]
    task: str
    success: bool
    seed: int
    data_path: Path
    pictures: dict[str, Pictures]

    @property
    def instructions(self) -> tuple[str, ...]:
        """The instruction of each step."""
        ends = [start for start, _ in self.told[1:]] + [self.length]
        return tuple(
            text
            for (start, text), end in zip(self.told, ends, strict=True)
            for _ in range(start, end)
        )


class Dataset:
    """A LeRobot dataset on disk, read lazily.

    Args:
        path: the folder that holds `meta/` and `data/`.
        robot: the robot whose policy looks at it: pictures come in the order of its cameras, at
            its size. None: every camera of the dataset, in its order, as recorded.

    Raises:
        InputError: not a dataset, another version, a file or feature missing.
    """

    def __init__(self, path: StrPath, robot: Embodiment | None = None) -> None:
        self.path = Path(path)
        self.robot = robot
        self.layout: Layout = read_layout(self.path)
        self.fps = self.layout.fps
        self._keys = self._chosen_cameras()
        self.episodes = self._read_episodes()
        self._starts = np.array([episode.first_frame for episode in self.episodes])
        self._rows = lru_cache(maxsize=8)(self._read_rows)
        self._last_episode: tuple[int, Episode] | None = None

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras, in the order of the `images` axis."""
        return tuple(camera_name(key) for key in self._keys)

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of what `episode` gives; the first camera's where none is asked for."""
        if self.robot is not None:
            return self.robot.image_height, self.robot.image_width
        return named_size(self.layout.features[self._keys[0]])

    @property
    def state_dim(self) -> int:
        """P, the size of the state vector."""
        return self.layout.size(STATE_KEY)

    @property
    def action_dim(self) -> int:
        """D, the size of the action vector."""
        return self.layout.size(ACTION_KEY)

    @property
    def embodiment(self) -> Embodiment | None:
        """The robot's description in `meta/libra_edge.json`, if there is one."""
        file = self.path / EXTRA_PATH
        return read_robot(file).embodiment if file.is_file() else None

    @property
    def split(self) -> str | None:
        """`train` or `eval` variations of the tasks, if the dataset says so."""
        extra = self.path / EXTRA_PATH
        recipe = read_json(extra).get("recipe", {}) if extra.is_file() else {}
        return str(recipe["split"]) if "split" in recipe else None

    @cached_property
    def stats(self) -> dict[str, FeatureStats]:
        """Statistics by feature: of states and actions from the data itself, others as stored."""
        stored = {
            key: {name: np.asarray(value, np.float64) for name, value in feature.items()}
            for key, feature in self.layout.stats.items()
            if key in self.layout.cameras and isinstance(feature, dict)
        }
        numbers = range(len(self.episodes))
        return stored | {
            key: vector_stats(np.concatenate([self.vectors(n, key) for n in numbers]))
            for key in (STATE_KEY, ACTION_KEY)
        }

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
        states, actions = (self.vectors(number, key) for key in (STATE_KEY, ACTION_KEY))
        return Episode(
            images=np.stack(list(self.pictures(number))),
            states=states,
            actions=actions,
            instruction=info.instruction,
            task=info.task,
            success=info.success,
            seed=info.seed,
            instructions=info.instructions if len(info.told) > 1 else None,
        )

    def pictures(self, number: int) -> Iterator[UInt8Array]:
        """The pictures of an episode step by step, one step in memory: uint8 [V, h, w, 3].

        For a robot whose cameras differ in size [bytes], each view at its camera's own size.
        """
        info = self.episodes[number]
        robot = self.robot
        sizes = (None,) * len(self._keys) if robot is None else robot.sizes
        pairs = zip(self._keys, sizes, strict=True)
        readers = [info.pictures[key].read(self.fps, size) for key, size in pairs]
        for views in zip(*readers, strict=True):
            if robot is not None and robot.camera_sizes is not None:
                yield np.concatenate([view.reshape(-1) for view in views])
                continue
            if len({view.shape for view in views}) > 1:
                raise InputError(
                    "dataset-image-sizes",
                    f"the cameras of {self.path} have different sizes: "
                    f"{sorted({view.shape[:2] for view in views})}.",
                    "Describe the robot: its cameras are then resized to one size.",
                )
            yield np.stack(views)

    def vectors(self, number: int, key: str) -> FloatArray:
        """States or actions of an episode without decoding its images: float32 [T, P or D]."""
        info = self.episodes[number]
        rows = self.recorded(number, key)
        if len(rows) != info.length:
            raise InputError(
                "dataset-truncated",
                f"{info.data_path} holds {len(rows)} of {info.length} frames of episode "
                f"{info.index}.",
                COPY_AGAIN,
            )
        if not np.isfinite(rows).all():
            step, dim = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
            raise InputError(
                "dataset-not-finite",
                f"{key}[{dim}] of episode {info.index}, frame {step} is {rows[step, dim]}.",
                "Repair or drop the episode; NaN and Inf are never filled in.",
            )
        return rows

    def recorded(self, number: int, key: str) -> FloatArray:
        """What the table holds of an episode, unchecked: float32 [rows, P or D]."""
        info = self.episodes[number]
        table, episode_index = self._rows(info.data_path)
        rows: FloatArray = table[key][episode_index == info.index]
        return rows

    def check_matches(self, embodiment: Embodiment) -> None:
        """Refuse a dataset that was recorded on another robot than `embodiment`.

        Raises:
            InputError: names, counts, order or rate differ, or pictures come at another size.
        """
        require(match_robot(self.layout, embodiment))
        wanted = (embodiment.image_height, embodiment.image_width)
        if (self.robot is None and self.picture_size != wanted) or (
            self.robot is not None and self.robot != embodiment
        ):
            raise InputError(
                "dataset-mismatch",
                f"image size: {self.picture_size} in {self.path}, {wanted} in {embodiment.name}.",
                "Open the dataset for this robot, so that its pictures are resized.",
            )

    def _chosen_cameras(self) -> tuple[str, ...]:
        keys = self.layout.cameras
        if self.robot is None:
            return keys
        by_name = {camera_name(key): key for key in keys}
        lacking = [name for name in self.robot.cameras if name not in by_name]
        if lacking:
            require(match_robot(self.layout, self.robot))
        return tuple(by_name[name] for name in self.robot.cameras)

    def _read_rows(self, path: Path) -> tuple[dict[str, FloatArray], npt.NDArray[np.int64]]:
        keys = [STATE_KEY, ACTION_KEY]
        table = read_table(path, [*keys, _EPISODE_KEY])
        return {key: matrix(table[key], path, key) for key in keys}, table[_EPISODE_KEY].to_numpy()

    def _read_episodes(self) -> tuple[EpisodeInfo, ...]:
        tasks = lru_cache(maxsize=2)(_read_tasks)
        episodes: list[EpisodeInfo] = []
        first = 0
        for row in self.layout.rows:
            numbers, task_index = tasks(row.data_path)
            rows = np.flatnonzero(numbers == row.index)
            told = self._told(row, task_index[rows])
            instruction = told[0][1]
            start = int(rows[0]) if len(rows) else 0
            episodes.append(
                EpisodeInfo(
                    index=row.index,
                    first_frame=first,
                    length=row.length,
                    instruction=instruction,
                    told=told,
                    task=str(row.extra.get("libra_edge/task") or instruction),
                    success=bool(row.extra.get("libra_edge/success", True)),
                    seed=_whole(row.extra.get("libra_edge/seed")),
                    data_path=row.data_path,
                    pictures=self._places(row, start),
                )
            )
            first += row.length
        return tuple(episodes)

    def _places(self, row: Row, start: int) -> dict[str, Pictures]:
        places = {}
        for key in self.layout.cameras:
            clip = row.clips.get(key)
            where = (
                (row.data_path, start)
                if clip is None
                else (
                    clip.path,
                    round(clip.start_s * self.fps),
                )
            )
            places[key] = Pictures(key, *where, row.length, clip is not None, self.path)
        return places

    def _told(self, row: Row, task_index: npt.NDArray[np.int64]) -> tuple[tuple[int, str], ...]:
        """The instructions of an episode from its frames, each with the step it begins at."""
        if len(task_index) == 0:
            return ((0, ", ".join(row.tasks)),)
        starts = [0, *(int(i) for i in np.flatnonzero(np.diff(task_index)) + 1)]
        told = []
        for step in starts:
            number = int(task_index[step])
            if number not in self.layout.tasks:
                raise InputError(
                    "dataset-task-unknown",
                    f"task_index of episode {row.index}, frame {step} is {number}; "
                    f"the task table of {self.path} has {len(self.layout.tasks)} rows without it.",
                    "Add the instruction to meta/tasks.parquet (v2: tasks.jsonl).",
                )
            told.append((step, self.layout.tasks[number]))
        return tuple(told)


def _whole(value: object) -> int:
    """A seed, 0 where there is none that could be one."""
    return value if isinstance(value, int) and value >= 0 else 0


def _read_tasks(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    table = read_table(path, [_EPISODE_KEY, _TASK_KEY])
    columns = [table[name].to_numpy() for name in (_EPISODE_KEY, _TASK_KEY)]
    if any(not np.issubdtype(column.dtype, np.integer) for column in columns):
        raise InputError(
            "dataset-file-corrupt",
            f"{path}: {_EPISODE_KEY} or {_TASK_KEY} holds values that are no whole numbers.",
            COPY_AGAIN,
        )
    return columns[0], columns[1]
