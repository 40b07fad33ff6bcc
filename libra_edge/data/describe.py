"""A draft of a robot's description from a stock LeRobot dataset, for a person to correct."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from libra_edge.data.examine.values import gather
from libra_edge.data.lerobot.dataset import Dataset
from libra_edge.data.lerobot.layout import Layout, camera_name
from libra_edge.data.lerobot.match import feature_names, named_size, picture_axes
from libra_edge.data.lerobot.robot import UNKNOWN, RobotFile
from libra_edge.data.lerobot_writer import ACTION_KEY, STATE_KEY
from libra_edge.errors import InputError
from libra_edge.paths import StrPath
from libra_edge.policy.config import ActionDim, Embodiment, StateDim

Kind = Literal["absolute", "delta", "gripper"]
# Shorter side that a small policy still sees with; larger pictures are drafted down to it.
_SHORT_SIDE_PX, _STEP_PX = 96, 8
_MARGIN = 0.1
_FULL_TURN_RAD = 2 * math.pi
_GRIPPERS = re.compile(r"grip|jaw|claw|finger")
# LeRobot's names and units, where a name tells the unit; the first that matches.
_UNITS = (
    (re.compile(r"(^|[._-])deg(rees?)?($|[._-])"), "deg"),
    (re.compile(r"(^|[._-])rad(ians?)?($|[._-])"), "rad"),
    (re.compile(r"(^|[._-])(vel|velocity|speed)($|[._-])"), UNKNOWN),
    (re.compile(r"(^|[._-])(effort|torque|tau)($|[._-])"), "Nm"),
    (re.compile(r"(^|[._-])(q[wxyz]|quat\w*)$"), "1"),
)
_JOINT = re.compile(
    r"joint|motor|shoulder|elbow|wrist|waist|arm|axis|pan|lift|flex|roll|pitch|yaw|(^|[._-])r[xyz]$"
)
_PLACE = re.compile(r"(^|[._-])[xyz]$")
# No arm reaches further than this many metres.
_REACH_M = 5.0


@dataclass(frozen=True)
class Described:
    """One dimension of a draft, and what the data does in it.

    Attributes:
        feature: LeRobot's name of the feature.
        name: the dimension's.
        unit: its unit, "?" where nothing tells it.
        kind: of an action; None for a state.
        limits: lower and upper, of an action.
        data: least and largest value in the data.
    """

    feature: str
    name: str
    unit: str
    kind: Kind | None
    limits: tuple[float, float] | None
    data: tuple[float, float]


@dataclass(frozen=True)
class Draft:
    """A robot's description with its guesses marked, and what it was drawn from."""

    file: RobotFile
    dimensions: tuple[Described, ...]


def draft_robot(path: StrPath) -> Draft:
    """Draft the description of a dataset's robot.

    Names, cameras and the rate are the dataset's. Units are guessed from names and values, limits
    from the quantiles with a margin, kinds from names and from how actions follow states; all of
    these are listed as guesses.

    Raises:
        InputError: the dataset cannot be read, or holds values that are not finite.
    """
    dataset = Dataset(path)
    layout = dataset.layout
    for number in range(len(dataset.episodes)):
        for key in (STATE_KEY, ACTION_KEY):
            dataset.vectors(number, key)
    states, actions = (gather(dataset, key)[0] for key in (STATE_KEY, ACTION_KEY))
    state_dims = [
        _state(name, column)
        for name, column in zip(_names(layout, STATE_KEY, states), states.T, strict=True)
    ]
    action_dims = [
        _action(name, column, state_dims, states)
        for name, column in zip(_names(layout, ACTION_KEY, actions), actions.T, strict=True)
    ]
    cameras = [key for key in layout.cameras if picture_axes(layout.features[key])["channels"] == 3]
    if not cameras:
        raise InputError(
            "dataset-feature-missing",
            f"{path} has no camera with three colours.",
            "Record at least one colour camera: a policy has to see.",
        )
    full = named_size(layout.features[cameras[0]])
    height, width = _policy_size(*full)
    robot = Embodiment(
        name=_clean(str(layout.info.get("robot_type") or "robot"), "robot"),
        control_hz=layout.fps,
        cameras=tuple(_camera(path, key) for key in cameras),
        image_height=height,
        image_width=width,
        state=tuple(StateDim(name=d.name, unit=d.unit) for d in state_dims),
        actions=tuple(_action_dim(d) for d in action_dims),
    )
    guessed = _guessed(state_dims, action_dims, resized=(height, width) != full)
    return Draft(RobotFile(embodiment=robot, guessed=tuple(guessed)), (*state_dims, *action_dims))


def _action_dim(drawn: Described) -> ActionDim:
    assert drawn.kind is not None, "an action has a kind"
    assert drawn.limits is not None, "an action has limits"
    lower, upper = drawn.limits
    return ActionDim(name=drawn.name, unit=drawn.unit, kind=drawn.kind, lower=lower, upper=upper)


def _guessed(
    states: Sequence[Described], actions: Sequence[Described], *, resized: bool
) -> list[str]:
    keys = ["embodiment.image_height", "embodiment.image_width"] if resized else []
    keys += [f"embodiment.state.{i}.unit" for i in range(len(states))]
    return keys + [
        f"embodiment.actions.{i}.{key}"
        for i in range(len(actions))
        for key in ("unit", "kind", "lower", "upper")
    ]


def _names(layout: Layout, key: str, rows: npt.NDArray[np.float32]) -> list[str]:
    """The feature's own names where they can be used; numbers otherwise."""
    names = feature_names(layout.features[key])
    if len(names) != rows.shape[1]:
        names = [""] * rows.shape[1]
    stem = "state" if key == STATE_KEY else "action"
    cleaned = [_clean(n.removesuffix(".pos"), f"{stem}_{i}") for i, n in enumerate(names)]
    return [n if cleaned.count(n) == 1 else f"{n[:58]}_{i}" for i, n in enumerate(cleaned)]


def _clean(name: str, otherwise: str) -> str:
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).lstrip("_.-")[:64]
    return kept or otherwise


def _camera(path: StrPath, key: str) -> str:
    name = camera_name(key)
    if _clean(name, "") != name:
        raise InputError(
            "dataset-camera-name",
            f"the camera {name!r} of {path} has a name that no robot's camera can have.",
            "Rename the feature in meta/info.json: letters, digits, dots, dashes, underscores.",
        )
    return name


def _state(name: str, column: npt.NDArray[np.float32]) -> Described:
    data = (float(column.min()), float(column.max()))
    return Described(STATE_KEY, name, _unit(name, column), None, None, data)


def _action(
    name: str,
    column: npt.NDArray[np.float32],
    states: Sequence[Described],
    recorded: npt.NDArray[np.float32],
) -> Described:
    data = (float(column.min()), float(column.max()))
    kind = _kind(name, column, states, recorded)
    limits = _limits(column, whole=kind == "gripper")
    return Described(ACTION_KEY, name, _unit(name, column), kind, limits, data)


def _unit(name: str, column: npt.NDArray[np.float32]) -> str:
    plain = name.lower()
    for pattern, unit in _UNITS:
        if pattern.search(plain):
            return unit
    reach = float(np.quantile(np.abs(column), 0.99))
    if _GRIPPERS.search(plain):
        return "1" if reach <= 1.01 else UNKNOWN
    if _PLACE.search(plain):
        return "m" if reach <= _REACH_M else UNKNOWN
    if _JOINT.search(plain):
        return "rad" if reach <= _FULL_TURN_RAD else "deg" if reach <= 360 else UNKNOWN
    return UNKNOWN


def _kind(
    name: str,
    column: npt.NDArray[np.float32],
    states: Sequence[Described],
    recorded: npt.NDArray[np.float32],
) -> Kind:
    if _GRIPPERS.search(name.lower()):
        return "gripper"
    if re.match(r"(delta|d)[._-]", name.lower()):
        return "delta"
    twin = next((i for i, state in enumerate(states) if state.name == name), None)
    if twin is not None:
        # A command that says where to go stays near where the robot is.
        away = float(np.abs(column - recorded[:, twin]).mean())
        moves = float(recorded[:, twin].std())
        return "absolute" if away <= max(moves, 1e-6) else "delta"
    return (
        "delta" if abs(float(np.median(column))) < 0.1 * float(np.abs(column).max()) else "absolute"
    )


def _limits(column: npt.NDArray[np.float32], *, whole: bool) -> tuple[float, float]:
    """Quantiles and a margin; all of the data where it is not far from that."""
    least, most = float(column.min()), float(column.max())
    low, high = (float(value) for value in np.quantile(column, (0.01, 0.99)))
    span = high - low
    if whole or span <= 0 or least >= low - span / 2:
        low = least
    if whole or span <= 0 or most <= high + span / 2:
        high = most
    margin = _MARGIN * (high - low) if high > low else max(abs(high), 1.0) * _MARGIN
    if whole:
        margin = 1e-3 * margin
    return _outward(low - margin, -1), _outward(high + margin, 1)


def _outward(value: float, side: int) -> float:
    """Rounded away from the data to three digits."""
    if value == 0:
        return 0.0
    digits = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    rounded = math.ceil(side * value / digits - 1e-9) * digits * side
    return float(f"{rounded:.6g}")


def _policy_size(height: int, width: int) -> tuple[int, int]:
    """The cameras' size, or a smaller one of the same ratio."""
    short = min(height, width)
    if short <= _SHORT_SIDE_PX + _SHORT_SIDE_PX // 3:
        return height, width
    scale = _SHORT_SIDE_PX / short
    drawn = [round(n * scale / _STEP_PX) * _STEP_PX for n in (height, width)]
    return drawn[0], drawn[1]
