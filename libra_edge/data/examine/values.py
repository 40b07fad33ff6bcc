"""Values: finite, inside the robot's limits, in its units, and spanned by their statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.data.findings import Finding, doubt, error, note
from libra_edge.data.lerobot.dataset import Dataset
from libra_edge.data.lerobot.match import feature_names
from libra_edge.data.lerobot_writer import ACTION_KEY, STATE_KEY
from libra_edge.data.types import FloatArray
from libra_edge.policy.config import ActionDim, Embodiment, StateDim

# More of a dimension's frames outside its limits than this: the limits are not this robot's.
_MOST_OUTSIDE = {"clamp": 0.5, "fault": 0.01}
_FULL_TURN_RAD = 2 * np.pi
# What else a value may be in, by the unit the description gives: the factor between them.
_CONFUSIONS = {
    "rad": (("degrees", 180 / np.pi),),
    "m": (("millimetres", 1000.0), ("centimetres", 100.0)),
    "1": (("percent", 100.0), ("bytes", 255.0)),
    "rad/s": (("degrees per second", 180 / np.pi),),
}
_UNITS = {
    "rad": "rad",
    "radian": "rad",
    "radians": "rad",
    "deg": "deg",
    "degree": "deg",
    "degrees": "deg",
    "m": "m",
    "meter": "m",
    "metre": "m",
    "meters": "m",
    "metres": "m",
    "1": "1",
    "rad/s": "rad/s",
}


def gather(dataset: Dataset, key: str) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """All rows of a feature, float32 [N, dims], and the (episode, frame) of each, int64 [N, 2]."""
    rows = [dataset.recorded(number, key) for number in range(len(dataset.episodes))]
    places = [
        np.stack([np.full(len(part), info.index), np.arange(len(part))], axis=1)
        for info, part in zip(dataset.episodes, rows, strict=True)
    ]
    return np.concatenate(rows), np.concatenate(places)


def check_finite(
    dataset: Dataset, key: str, rows: FloatArray, places: npt.NDArray[np.int64]
) -> Iterator[Finding]:
    """NaN and infinite values: the first, and how many."""
    wrong = np.argwhere(~np.isfinite(rows))
    if len(wrong):
        row, dim = (int(i) for i in wrong[0])
        episode, frame = (int(i) for i in places[row])
        yield error(
            "dataset-not-finite",
            f"{key}[{dim}]{named(dataset, key, dim)} of episode {episode}, frame {frame} is "
            f"{rows[row, dim]} ({len(wrong)} values in {len(np.unique(wrong[:, 0]))} frames are "
            "not finite).",
            "Repair or drop the episode; NaN and Inf are never filled in.",
            feature=key,
            dimension=dim,
            episode=episode,
            frame=frame,
        )


def check_shape(dataset: Dataset, key: str, rows: FloatArray) -> Iterator[Finding]:
    """The vectors have the size that `meta/info.json` says."""
    size = dataset.layout.size(key)
    if rows.shape[1] != size:
        yield error(
            "dataset-shape",
            f"{key} has {size} dimensions in meta/info.json and {rows.shape[1]} in the data.",
            "Copy meta/ and data/ from the same dataset.",
            feature=key,
        )


def check_limits(
    dataset: Dataset, rows: FloatArray, places: npt.NDArray[np.int64], robot: Embodiment
) -> Iterator[Finding]:
    """Actions outside the limits, and values that look like another unit than they are said."""
    confused = _radians_in_degrees(robot.actions, rows)
    for dim, described in enumerate(robot.actions):
        values = rows[:, dim].astype(np.float64)
        slack = 1e-4 * (described.upper - described.lower)
        outside = (values < described.lower - slack) | (values > described.upper + slack)
        where: dict[str, Any] = {"feature": ACTION_KEY, "dimension": dim}
        what = f"{ACTION_KEY}[{dim}] ({described.name}, {described.unit})"
        if outside.any():
            at = int(np.flatnonzero(outside)[0])
            where |= {"episode": int(places[at, 0]), "frame": int(places[at, 1])}
        other = _other_unit(described.unit, values, max(abs(described.lower), abs(described.upper)))
        if outside.any() and other:
            yield error(
                "dataset-unit",
                f"{what} runs from {values.min():g} to {values.max():g}, its limits are "
                f"{described.lower:g} to {described.upper:g} ({outside.mean():.1%} of the frames "
                f"lie outside): the data looks like {other}.",
                "Give the unit and the limits the data is in, or convert the data.",
                **where,
            )
        elif outside.any():
            yield from _outside(what, described, values, outside, where)
        elif described.unit and (turns := _too_many_turns(described.unit, values)):
            yield doubt(
                "dataset-unit",
                f"{what} runs to {turns:g}, which is {turns / _FULL_TURN_RAD:.1f} turns: the data "
                "looks like degrees.",
                "Correct the unit and the limits of the description if so.",
                **where,
            )
    if confused:
        yield confused
    yield from _too_fast(dataset, robot)


def check_state_units(rows: FloatArray, dims: Sequence[StateDim]) -> Iterator[Finding]:
    """States that look like degrees where the description says radians."""
    for dim, described in enumerate(dims):
        turns = _too_many_turns(described.unit, rows[:, dim].astype(np.float64))
        if turns:
            yield doubt(
                "dataset-unit",
                f"{STATE_KEY}[{dim}] ({described.name}, {described.unit}) runs to {turns:g}, which "
                f"is {turns / _FULL_TURN_RAD:.1f} turns: the data looks like degrees.",
                "Correct the unit of the description if so.",
                feature=STATE_KEY,
                dimension=dim,
            )


def check_stillness(dataset: Dataset, key: str, rows: FloatArray) -> Iterator[Finding]:
    """Dimensions that never move: fine, but worth saying; all of them: nothing to learn."""
    least, most = rows.min(axis=0), rows.max(axis=0)
    still = [d for d in range(rows.shape[1]) if most[d] - least[d] <= noise(most[d], least[d])]
    if len(still) == rows.shape[1]:
        yield doubt(
            "dataset-still",
            f"{key} is the same in all {len(rows)} frames.",
            "Check the recording: there is nothing to learn from it.",
            feature=key,
        )
    elif still:
        names = ", ".join(f"[{d}]{named(dataset, key, d)}" for d in still)
        yield note(
            "dataset-constant",
            f"{key}: {names} never moves.",
            "Nothing, if the dimension is not used: the policy keeps it where it is.",
            feature=key,
            dimension=still[0],
        )


def _outside(
    what: str,
    described: ActionDim,
    values: npt.NDArray[np.float64],
    outside: npt.NDArray[np.bool_],
    where: dict[str, Any],
) -> Iterator[Finding]:
    share = float(outside.mean())
    fact = (
        f"{what}: {share:.2%} of the frames lie outside its limits {described.lower:g} to "
        f"{described.upper:g}, first episode {where['episode']}, frame {where['frame']}; "
        f"the data runs from {values.min():g} to {values.max():g}"
    )
    remedy = (
        "Correct the limits of the description if the robot may go there; drop the episodes if not."
    )
    if share > _MOST_OUTSIDE[described.on_limit]:
        yield error("dataset-outside-limits", f"{fact}.", remedy, **where)
    else:
        then = "clamped" if described.on_limit == "clamp" else "a FAULT"
        yield doubt("dataset-outside-limits", f"{fact}: on the robot {then}.", remedy, **where)


def _other_unit(unit: str, values: npt.NDArray[np.float64], limit: float) -> str | None:
    """The unit whose factor brings values far outside the limits back to their size."""
    reach = float(np.quantile(np.abs(values), 0.99))
    for name, factor in _CONFUSIONS.get(_UNITS.get(unit.strip().lower(), ""), ()):
        # Robots use a part of their range: the reach of the data, converted, is some of the limit.
        if reach > 2 * limit and reach / factor <= 1.1 * limit:
            return name
    return None


def _too_many_turns(unit: str, values: npt.NDArray[np.float64]) -> float:
    """The largest angle of a dimension in radians, where no joint turns so often; else 0."""
    reach = float(np.quantile(np.abs(values), 0.99))
    return (
        reach if _UNITS.get(unit.strip().lower()) == "rad" and reach > 2 * _FULL_TURN_RAD else 0.0
    )


def _radians_in_degrees(dims: Sequence[ActionDim], rows: FloatArray) -> Finding | None:
    """All joints "in degrees" stay within ±π although they may go much further."""
    joints = [
        i
        for i, dim in enumerate(dims)
        if _UNITS.get(dim.unit.strip().lower()) == "deg" and dim.kind == "absolute"
    ]
    if len(joints) < 2:
        return None
    reach = float(np.abs(rows[:, joints]).max())
    widest = max(dims[i].upper - dims[i].lower for i in joints)
    if not 0.05 < reach <= 1.05 * np.pi or widest < 20 * reach:
        return None
    return doubt(
        "dataset-unit",
        f"all {len(joints)} joints in degrees stay within ±{reach:.3g}, of limits {widest:g} wide: "
        "the data looks like radians.",
        "Give the unit and the limits the data is in, or convert the data.",
        feature=ACTION_KEY,
        dimension=joints[0],
    )


def _too_fast(dataset: Dataset, robot: Embodiment) -> Iterator[Finding]:
    """Steps larger than the description's `max_step_change`."""
    for dim, described in enumerate(robot.actions):
        most = described.max_step_change
        if most is None:
            continue
        over, steps, first = 0, 0, (0, 0)
        for number, info in enumerate(dataset.episodes):
            change = np.abs(np.diff(dataset.recorded(number, ACTION_KEY)[:, dim]))
            wrong = np.flatnonzero(change > most * (1 + 1e-4))
            if len(wrong) and not over:
                first = (info.index, int(wrong[0]) + 1)
            over, steps = over + len(wrong), steps + len(change)
        if over:
            yield doubt(
                "dataset-outside-limits",
                f"{ACTION_KEY}[{dim}] ({described.name}): {over / steps:.2%} of the steps change "
                f"it by more than max_step_change {most:g}, first episode {first[0]}, frame "
                f"{first[1]}.",
                "Correct max_step_change if the robot may move so fast.",
                feature=ACTION_KEY,
                dimension=dim,
                episode=first[0],
                frame=first[1],
            )


def is_gripper(dim: ActionDim) -> bool:
    """Whether a dimension opens and closes something, by its kind or its name."""
    return dim.kind == "gripper" or "grip" in dim.name.lower()


def noise(most: float, least: float) -> float:
    """What rounding of float32 may add to a value that never moves."""
    return max(abs(most), abs(least), 1.0) * 1e-6


def named(dataset: Dataset, key: str, dim: int) -> str:
    """The dimension's name in the dataset, in brackets; nothing where it has none."""
    names = feature_names(dataset.layout.features[key])
    return f" ({names[dim]})" if dim < len(names) else ""
