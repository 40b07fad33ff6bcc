"""Choose what to calibrate on: frames that stand for all a robot meets, and no evaluation frame.

Samples are spread over tasks, then episodes, then phases of an episode; a share of them is taken
where the gripper opens or closes, which is rare and where an error costs most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from libra_edge.data.extras import needs_extra
from libra_edge.errors import InputError
from libra_edge.parity.samples import sample_at
from libra_edge.paths import StrPath
from libra_edge.policy.actions import to_tokens
from libra_edge.policy.checkpoint import Checkpoint
from libra_edge.policy.config import Embodiment
from libra_edge.policy.execution.noise import chunk_noise
from libra_edge.policy.imported import AnyCheckpoint, Imported

if TYPE_CHECKING:
    from libra_edge.data.lerobot import Dataset

PHASES = 4
GRIPPER_SHARE = 0.25
# A gripper moves when its command passes the middle of its range; frames this near count.
GRIPPER_NEAR_STEPS = 2
FEWEST_SAMPLES = 128
SOURCES = 2
ARRAYS = ("images", "states", "instructions", "tokens", "noise")
Frame = tuple[int, int]
# LeRobot's name; its reader needs packages that compiling without calibration does not.
ACTION_KEY = "action"


@dataclass(frozen=True)
class CalibrationData:
    """S observations with the plan that was really followed.

    images: uint8 [S, M, V, h, w, 3] and states: float32 [S, M, P], at the step of each chunk;
    instructions: int64 [S, T]; tokens: recorded intents int32 [S, L, D]; noise: float32
    [S, M, 2, H, D], for recorded and predicted intents; frames: (episode, step) of each; source:
    the dataset's fingerprint. Of a policy without a planner images, states, instructions and noise
    are as its engine takes them, below S, and there are no tokens.
    """

    images: npt.NDArray[np.uint8]
    states: npt.NDArray[np.float32]
    instructions: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]
    noise: npt.NDArray[np.float32]
    frames: tuple[Frame, ...]
    source: str

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, rows: slice) -> CalibrationData:
        """Some of the samples."""
        some: dict[str, Any] = {name: array[rows] for name, array in self._arrays()}
        return replace(self, frames=self.frames[rows], **some)

    @property
    def sha256(self) -> str:
        """Hash of everything in it."""
        digest = hashlib.sha256(self.source.encode())
        for name, array in self._arrays():
            digest.update(f"{name}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _arrays(self) -> list[tuple[str, npt.NDArray[Any]]]:
        return [(name, getattr(self, name)) for name in ARRAYS]


def open_calibration_data(
    path: StrPath, evaluation: StrPath | None, checkpoint: AnyCheckpoint, count: int
) -> CalibrationData:
    """Read `count` frames of the LeRobot dataset at `path`, which shares none with `evaluation`.

    Raises:
        InputError: a dataset cannot be read, is another robot's, or is not fit for calibration.
    """
    with needs_extra("train", "Reading a dataset"):
        from libra_edge.data.examine import open_dataset
        from libra_edge.data.lerobot import Dataset
    dataset = open_dataset(path, checkpoint.config.embodiment, checkpoint.tokenizer)
    if dataset.split == "eval":
        raise InputError(
            "calibration-not-apart",
            f"{path} was recorded on evaluation variations (its split is 'eval').",
            "Calibrate on training data; evaluation episodes are for the gates.",
        )
    if evaluation is not None:
        require_apart(dataset, Dataset(evaluation))
    return read_calibration_data(dataset, checkpoint, count)


def read_calibration_data(
    dataset: Dataset, checkpoint: AnyCheckpoint, count: int, seed: int = 0
) -> CalibrationData:
    """Choose `count` frames of a dataset and read them.

    Raises:
        InputError: another robot's dataset, too few frames, values that are not finite.
    """
    config = checkpoint.config
    dataset.check_matches(config.embodiment)
    if len(dataset) < max(count, FEWEST_SAMPLES):
        raise InputError(
            "calibration-too-few",
            f"{dataset.path} has {len(dataset)} frames; calibration wants {count} and never "
            f"does with fewer than {FEWEST_SAMPLES}.",
            "Record more episodes, or name a larger dataset.",
        )
    frames = choose_frames(dataset, config.embodiment, count, seed)
    rows = [_read(dataset, checkpoint, frame, i, seed) for i, frame in enumerate(frames)]
    columns = (np.stack(column) for column in zip(*rows, strict=True))
    arrays: dict[str, Any] = dict(zip(ARRAYS, columns, strict=True))
    return CalibrationData(**arrays, frames=tuple(frames), source=dataset.fingerprint)


def require_apart(calibration: Dataset, evaluation: Dataset) -> None:
    """Refuse to calibrate on what the gates are measured on.

    Raises:
        InputError: both hold an episode of the same task and seed, or are the same files.
    """

    def scenes(dataset: Dataset) -> set[tuple[str, int]]:
        return {(e.task, e.seed) for e in dataset.episodes if e.seed != 0}

    # Where both say their split, equal seeds of different splits are different scenes.
    splits = {calibration.split, evaluation.split}
    apart = len(splits) == 2 and None not in splits
    shared = [] if apart else sorted(scenes(calibration) & scenes(evaluation))
    same = calibration.path.resolve() == evaluation.path.resolve()
    if shared or same or calibration.fingerprint == evaluation.fingerprint:
        what = f"task {shared[0][0]}, seed {shared[0][1]}" if shared else "all of it"
        raise InputError(
            "calibration-not-apart",
            f"{calibration.path} and {evaluation.path} share episodes ({what}).",
            "Calibrate on training data, and keep the evaluation's episodes out of it.",
        )


def choose_frames(dataset: Dataset, robot: Embodiment, count: int, seed: int) -> list[Frame]:
    """`count` different frames, sorted: every task alike, phases alike, grippers more often."""
    random = np.random.default_rng(seed)
    moving = _gripper_frames(dataset, robot)
    extra = _spread(dataset, moving, round(count * GRIPPER_SHARE), random)
    chosen = set(extra)
    phases = [_phase_frames(dataset, phase) for phase in range(PHASES)]
    for phase, pool in enumerate(phases):
        missing = (count - len(extra)) * (phase + 1) // PHASES - (len(chosen) - len(extra))
        chosen |= set(_spread(dataset, [f for f in pool if f not in chosen], missing, random))
    rest = [f for pool in phases for f in pool if f not in chosen]
    chosen |= set(_spread(dataset, rest, count - len(chosen), random))
    return sorted(chosen)


def _phase_frames(dataset: Dataset, phase: int) -> list[Frame]:
    return [
        (number, step)
        for number, episode in enumerate(dataset.episodes)
        for step in range(episode.length * phase // PHASES, episode.length * (phase + 1) // PHASES)
    ]


def _gripper_frames(dataset: Dataset, robot: Embodiment) -> list[Frame]:
    """Frames just before a gripper's command passes the middle of its range, or just after."""
    actions = robot.actions
    dims = [i for i, dim in enumerate(actions) if dim.kind == "gripper"]
    middle = np.array([(actions[i].lower + actions[i].upper) / 2 for i in dims], np.float32)
    found: list[Frame] = []
    for number in range(len(dataset.episodes)):
        commands = dataset.vectors(number, ACTION_KEY)
        closed = commands[:, dims] > middle
        changes = np.flatnonzero((closed[1:] != closed[:-1]).any(axis=1)) + 1
        near = changes[:, None] + np.arange(-GRIPPER_NEAR_STEPS, GRIPPER_NEAR_STEPS)
        steps = np.unique(near[(near >= 0) & (near < len(commands))])
        found += [(number, int(step)) for step in steps]
    return found


def _spread(
    dataset: Dataset, pool: Sequence[Frame], count: int, random: np.random.Generator
) -> list[Frame]:
    """Up to `count` of `pool`: tasks take turns, within a task episodes, within those chance."""
    by_task: dict[str, dict[int, list[Frame]]] = {}
    for frame in pool:
        task = dataset.episodes[frame[0]].task
        by_task.setdefault(task, {}).setdefault(frame[0], []).append(frame)
    queues = [_take_turns(list(episodes.values()), random) for episodes in by_task.values()]
    return _interleave(queues)[: max(count, 0)]


def _take_turns(episodes: list[list[Frame]], random: np.random.Generator) -> list[Frame]:
    shuffled = [[frames[j] for j in random.permutation(len(frames))] for frames in episodes]
    return _interleave([shuffled[i] for i in random.permutation(len(shuffled))])


def _interleave(queues: Sequence[Sequence[Frame]]) -> list[Frame]:
    longest = max((len(queue) for queue in queues), default=0)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]


def _read(
    dataset: Dataset, checkpoint: AnyCheckpoint, frame: Frame, sample: int, seed: int
) -> tuple[npt.NDArray[Any], ...]:
    """One sample's images, states, instruction, tokens and noise."""
    if not isinstance(checkpoint, Checkpoint):
        return _read_alone(dataset, checkpoint, frame, sample, seed)
    config, (number, step) = checkpoint.config, frame
    first = dataset.episodes[number].first_frame
    last = dataset.episodes[number].length - 1
    parts = [min(step + m * config.chunk, last) for m in range(config.chunks_per_plan)]
    seen = [dataset.frame(first + at)[0] for at in parts]
    steps = np.minimum(step + np.arange(config.plan_steps), last)
    actions = dataset.vectors(number, ACTION_KEY)[steps]
    tokens = to_tokens(checkpoint.policy.action_affine.normalize(actions), config.bins)
    shape = (config.chunks_per_plan, SOURCES, config.chunk, config.action_dim)
    return (
        np.stack([observation.images for observation in seen]),
        np.stack([observation.state for observation in seen]),
        checkpoint.tokenizer.encode(seen[0].instruction),
        tokens,
        chunk_noise(seed, sample, shape),
    )


def _read_alone(
    dataset: Dataset, checkpoint: Imported, frame: Frame, sample: int, seed: int
) -> tuple[npt.NDArray[Any], ...]:
    """The same of a policy without a planner: what one call of its engine takes."""
    contract, (number, step) = checkpoint.config, frame
    index = dataset.episodes[number].first_frame + step
    read = sample_at(dataset, contract, checkpoint.tokenizer, index, sample, seed)
    return read.images, read.state, read.instruction, np.empty((0, 0), np.int32), read.noise
