"""A `pretrained_model` folder: configuration, processing steps with their statistics, weights.

Sources: LeRobot 0.6 writes `config.json`, `policy_preprocessor.json` and
`policy_postprocessor.json`, whose steps name the files of their statistics, and the weights.
Nothing here unpickles, and no step is passed over in silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.errors import InputError, did_you_mean
from libra_edge.policy.weights import read_tensors

CONFIG = "config.json"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
IMAGES, STATE, ACTION = "observation.images.", "observation.state", "action"
# Of any size that a configuration tells: more is a slip, and is found before memory is asked for.
MOST = 65536
MODES = ("IDENTITY", "MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10")
# What each way of normalising reads.
NEEDED = {
    "IDENTITY": (),
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
# Steps without numbers: batches and devices are LeRobot's own business.
_NOTHING_TO_DO = ("device_processor", "to_batch_processor")
_RENAMES = "rename_observations_processor"
Statistics = dict[str, dict[str, npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class Normalization:
    """A normaliser step: mode by kind of feature (VISUAL, STATE, ACTION), numbers by feature."""

    modes: Mapping[str, str]
    eps: float
    statistics: Statistics

    def mode(self, kind: str) -> str:
        """How features of a kind are normalised."""
        return self.modes.get(kind, "IDENTITY")


@dataclass(frozen=True)
class Steps:
    """The steps of a folder, but for those that have nothing to do.

    before, after: settings by the step's name, in order; normalization, unnormalization: what the
    policy's inputs and its actions go through; renames: features of the policy to those of the
    data that it was trained on.
    """

    before: Mapping[str, Mapping[str, Any]]
    after: Mapping[str, Mapping[str, Any]]
    normalization: Normalization
    unnormalization: Normalization
    renames: Mapping[str, str]


@dataclass(frozen=True)
class Folder:
    """A folder whose parts belong together.

    cameras: feature of the policy and [height, width] by the name that the data has for it, in the
    policy's order.
    """

    path: Path
    config: Mapping[str, Any]
    cameras: Mapping[str, tuple[str, tuple[int, int]]]
    state_dim: int
    action_dim: int
    steps: Steps

    def get(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """A value of `config.json`.

        Raises:
            InputError: it is missing or of another type.
        """
        if key not in self.config:
            raise self.wrong(f"it has no key {key!r}")
        value = self.config[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise self.wrong(f"{key} is {value!r}")
        return value

    def count(self, key: str, most: int = MOST) -> int:
        """How many there are of something, a whole number from 1 to `most`.

        Raises:
            InputError: it is missing or something else.
        """
        value = self.get(key, int)
        if not 1 <= value <= most:
            raise self.wrong(f"{key} is {value}, not 1 to {most}")
        return int(value)

    def pair(self, key: str) -> tuple[int, int] | None:
        """Two sides in pixels, or nothing.

        Raises:
            InputError: it is something else.
        """
        value = self.config.get(key)
        if value is None:
            return None
        sides = value if isinstance(value, list) else []
        whole = all(isinstance(s, int) and not isinstance(s, bool) for s in sides)
        if len(sides) != 2 or not whole or not all(1 <= side <= MOST for side in sides):
            raise self.wrong(f"{key} is {value!r}")
        return sides[0], sides[1]

    def whole(self, key: str, default: int) -> int:
        """A whole number that `config.json` may leave out.

        Raises:
            InputError: it is something else.
        """
        value = self.config.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(f"{key} is {value!r}")
        return value

    def wrong(self, fact: str) -> InputError:
        """The error for a configuration that cannot be compiled."""
        return _wrong(self.path / CONFIG, fact)


def _wrong(path: Path, fact: str) -> InputError:
    return InputError(
        "lerobot-folder-invalid",
        f"{path}: {fact}.",
        "Copy the whole pretrained_model folder again; LeRobot 0.4 to 0.6 write what is read here.",
    )


def read_folder(path: Path, *, known: tuple[str, ...] = ()) -> Folder:
    """Read everything but the weights.

    Args:
        path: the folder.
        known: steps that the policy's family carries out itself, by their registered names.

    Raises:
        InputError: a file is missing or damaged, a feature is of a kind that is not compiled, a
            step is unknown, or statistics are missing that a step needs.
    """
    config = _read_json(path / CONFIG)
    inputs = _features(path, config, "input_features")
    outputs = _features(path, config, "output_features")
    for name, (kind, shape) in inputs.items():
        camera = kind == "VISUAL" and name.startswith(IMAGES) and len(shape) == 3 and shape[0] == 3
        if not camera and (name, kind, len(shape)) != (STATE, "STATE", 1):
            raise _wrong(
                path / CONFIG, f"the input {name} ({kind} {list(shape)}) is none that is compiled"
            )
    if list(outputs) != [ACTION] or len(outputs[ACTION][1]) != 1:
        raise _wrong(path / CONFIG, f"its outputs are {', '.join(outputs) or 'none'}, not action")
    if STATE not in inputs:
        raise _wrong(path / CONFIG, f"it has no input {STATE}")
    if not any(name.startswith(IMAGES) for name in inputs):
        raise _wrong(path / CONFIG, "it has no camera")
    sizes = {name: shape for name, (_, shape) in {**inputs, **outputs}.items()}
    steps = _read_steps(path, known, sizes)
    cameras = {
        steps.renames.get(name, name).removeprefix(IMAGES): (name, (shape[1], shape[2]))
        for name, (_, shape) in inputs.items()
        if name.startswith(IMAGES)
    }
    return Folder(path, config, cameras, inputs[STATE][1][0], outputs[ACTION][1][0], steps)


def _features(
    path: Path, config: Mapping[str, Any], key: str
) -> dict[str, tuple[str, tuple[int, ...]]]:
    try:
        found = {
            str(name): (str(feature["type"]), tuple(int(size) for size in feature["shape"]))
            for name, feature in config[key].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _wrong(path / CONFIG, f"{key} is missing or no table of features") from None
    for name, (_, shape) in found.items():
        if not all(1 <= size <= MOST for size in shape):
            raise _wrong(path / CONFIG, f"the shape of {name} is {list(shape)}")
    return found


def _read_steps(path: Path, known: tuple[str, ...], sizes: Mapping[str, tuple[int, ...]]) -> Steps:
    known = (*known, _RENAMES)
    before, normalization = _read_processor(path / PREPROCESSOR, "normalizer_processor", known)
    after, unnormalization = _read_processor(path / POSTPROCESSOR, "unnormalizer_processor", known)
    renamed = before.pop(_RENAMES, {}).get("rename_map", {})
    if not isinstance(renamed, dict):
        raise _wrong(path / PREPROCESSOR, f"rename_map is {renamed!r}")
    for step, wanted in ((normalization, [*sizes]), (unnormalization, [ACTION])):
        for feature in wanted:
            kind = "VISUAL" if feature.startswith(IMAGES) else "STATE"
            kind = "ACTION" if feature == ACTION else kind
            _require_statistics(path, step, feature, kind, sizes[feature])
    renames = {str(new): str(old) for old, new in renamed.items()}
    return Steps(before, after, normalization, unnormalization, renames)


def _require_statistics(
    path: Path, step: Normalization, feature: str, kind: str, shape: tuple[int, ...]
) -> None:
    mode = step.mode(kind)
    if mode not in MODES:
        raise InputError(
            "lerobot-normalization-unknown",
            f"{path}: {kind} features are normalised by {mode!r}.",
            did_you_mean(mode, MODES),
        )
    found = step.statistics.get(feature, {})
    channels = shape[:1] if kind == "VISUAL" else shape
    for name in NEEDED[mode]:
        numbers = found.get(name)
        if numbers is None:
            raise InputError(
                "lerobot-statistics-missing",
                f"{path}: {feature} is normalised by {mode}, and its {name!r} is not there.",
                "Compute the dataset's statistics anew and write the processors again with "
                "LeRobot, from the same training.",
            )
        if numbers.size != channels[0] or not np.isfinite(numbers).all():
            raise InputError(
                "lerobot-statistics-invalid",
                f"{path}: {name} of {feature} holds {numbers.size} numbers for {channels[0]} "
                "dimensions, or some that are not finite.",
                "The statistics belong to another dataset; copy the folder of one training.",
            )


def _read_processor(
    path: Path, normalizer: str, known: tuple[str, ...]
) -> tuple[dict[str, Mapping[str, Any]], Normalization]:
    body = _read_json(path)
    found: dict[str, Mapping[str, Any]] = {}
    normalization: Normalization | None = None
    try:
        steps = [(str(s.get("registry_name", s.get("class"))), s) for s in body["steps"]]
        for name, step in steps:
            settings = step.get("config", {})
            if not isinstance(settings, dict):
                raise _wrong(path, f"the settings of {name} are no table")
            if name == normalizer:
                normalization = _read_normalization(path, step, settings)
            elif name in known or name in _NOTHING_TO_DO:
                found |= {name: settings} if name in known else {}
            else:
                raise InputError(
                    "lerobot-step-unsupported",
                    f"{path}: the step {name!r} is none that is compiled.",
                    "Run the policy with LeRobot, or train it without this step; nothing is left "
                    "out in silence.",
                )
    except (KeyError, TypeError, AttributeError, ValueError):
        raise _wrong(path, "it is no list of processing steps") from None
    if normalization is None:
        raise _wrong(path, f"it has no step {normalizer}")
    return found, normalization


def _read_normalization(
    path: Path, step: Mapping[str, Any], settings: Mapping[str, Any]
) -> Normalization:
    file = step.get("state_file")
    statistics: Statistics = {}
    if file is not None:
        if not isinstance(file, str) or Path(file).name != file:
            raise _wrong(path, f"it names the file {file!r}")
        if not (path.parent / file).is_file():
            raise _wrong(path.parent / file, "it does not exist")
        for key, tensor in read_tensors(path.parent / file).items():
            feature, _, name = key.rpartition(".")
            numbers = tensor.float().numpy().reshape(-1)
            statistics.setdefault(feature, {})[name] = numbers
    modes = {str(kind): str(mode) for kind, mode in settings["norm_map"].items()}
    return Normalization(modes, float(settings.get("eps", 1e-8)), statistics)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _wrong(path, "it does not exist") from None
    except (ValueError, OSError):
        raise _wrong(path, "it is not JSON") from None
    if not isinstance(body, dict):
        raise _wrong(path, "it is no table")
    return body
