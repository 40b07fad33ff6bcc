"""A robot's description held against a dataset's features: names, order, count, size, rate."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from libra_edge.data.findings import Finding, doubt, error, note
from libra_edge.data.lerobot.layout import Layout, camera_name
from libra_edge.data.lerobot_writer import ACTION_KEY, STATE_KEY
from libra_edge.policy.config import Embodiment

_SAME_ROBOT = "Use a dataset recorded on the same robot, or correct the robot's description."
# How much the ratio of width to height may change by rounding alone.
_ASPECT_TOLERANCE = 0.03
_DEPTH_KEYS = ("video.is_depth_map", "is_depth_map")


def match_robot(layout: Layout, robot: Embodiment) -> list[Finding]:
    """Where a dataset and a robot's description differ."""
    return [
        *_dimensions(layout, STATE_KEY, [dim.name for dim in robot.state], robot.name),
        *_dimensions(layout, ACTION_KEY, [dim.name for dim in robot.actions], robot.name),
        *_cameras(layout, robot),
        *_rate(layout, robot),
    ]


def named_size(feature: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width; LeRobot names the axes, as some datasets put the channels first."""
    axes = picture_axes(feature)
    return axes["height"], axes["width"]


def picture_axes(feature: Mapping[str, Any]) -> dict[str, int]:
    """`height`, `width` and `channels` of a picture feature; without names, by the sizes."""
    shape = [int(n) for n in feature["shape"]]
    names = [name.rstrip("s") for name in feature_names(feature)]
    if sorted(names) != ["channel", "height", "width"] or len(shape) != 3:
        if len(shape) == 2:
            shape = [*shape, 1]
        if len(shape) != 3:
            return {"height": 0, "width": 0, "channels": 0}
        first = shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4)
        names = ["channel", "height", "width"] if first else ["height", "width", "channel"]
    axes = dict(zip(names, shape, strict=True))
    return {"height": axes["height"], "width": axes["width"], "channels": axes["channel"]}


def feature_names(feature: Mapping[str, Any]) -> list[str]:
    """The names of a feature's dimensions or axes, flat; empty where it has none."""
    return [str(name) for name in _flat(feature.get("names"))]


def _flat(names: Any) -> Iterator[Any]:
    """LeRobot has written lists, lists in lists and tables of lists."""
    if isinstance(names, Mapping):
        # {"motors": ["a", "b"]}, but also {"a": 0, "b": 1}.
        plain = all(isinstance(value, int) for value in names.values())
        for value in names if plain else names.values():
            yield from _flat(value)
    elif isinstance(names, Sequence) and not isinstance(names, str):
        for value in names:
            yield from _flat(value)
    elif names is not None:
        yield names


def plain_name(name: str) -> str:
    """A name without what tools add to it: case, separators and LeRobot's `.pos`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().removesuffix(".pos")).strip("_")


def _dimensions(layout: Layout, key: str, wanted: list[str], robot: str) -> Iterator[Finding]:
    size = layout.size(key)
    if size != len(wanted):
        what = "action dimensions" if key == ACTION_KEY else "state dimensions"
        yield error(
            "dataset-mismatch",
            f"{what}: {size} in {layout.path}, {len(wanted)} in {robot}.",
            _SAME_ROBOT,
            feature=key,
        )
        return
    names = feature_names(layout.features[key])
    if not names:
        return
    if len(names) != size:
        yield doubt(
            "dataset-names",
            f"{key} has {size} dimensions and {len(names)} names in {layout.path}.",
            "Correct `names` in meta/info.json: the order of dimensions cannot be checked.",
            feature=key,
        )
        return
    yield from _names(layout, key, names, wanted, robot)


def _names(
    layout: Layout, key: str, names: list[str], wanted: list[str], robot: str
) -> Iterator[Finding]:
    found, asked = [plain_name(n) for n in names], [plain_name(n) for n in wanted]
    for i, (have, want) in enumerate(zip(found, asked, strict=True)):
        if have == want:
            continue
        if want in found or have in asked:
            yield error(
                "dataset-mismatch",
                f"{key}[{i}] is {names[i]!r} in {layout.path}, {wanted[i]!r} in {robot}: "
                f"the dimensions stand in another order ({', '.join(names)}).",
                "List the dimensions of the robot's description in the dataset's order.",
                feature=key,
                dimension=i,
            )
            return
    different = [i for i, (have, want) in enumerate(zip(found, asked, strict=True)) if have != want]
    if different:
        i = different[0]
        yield doubt(
            "dataset-names",
            f"{key}[{i}] is {names[i]!r} in {layout.path}, {wanted[i]!r} in {robot} "
            f"({len(different)} of {len(names)} names differ).",
            "Check that both mean the same, and use the dataset's names in the description.",
            feature=key,
            dimension=i,
        )


def _cameras(layout: Layout, robot: Embodiment) -> Iterator[Finding]:
    by_name = {camera_name(key): key for key in layout.cameras}
    names = ", ".join(by_name)
    for camera in robot.cameras:
        if camera not in by_name:
            yield error(
                "dataset-mismatch",
                f"cameras: {names} in {layout.path}, {', '.join(robot.cameras)} in {robot.name}; "
                f"{camera!r} is missing.",
                "Use a dataset with this camera, or the dataset's name for it.",
            )
    shared = [name for name in by_name if name in robot.cameras]
    if shared != [name for name in robot.cameras if name in by_name]:
        yield error(
            "dataset-mismatch",
            f"cameras in another order: {names} in {layout.path}, "
            f"{', '.join(robot.cameras)} in {robot.name}. Swapped views ruin a policy in silence.",
            f"List the cameras of the description in the dataset's order: {', '.join(shared)}; "
            "for a policy that exists, use a dataset with its order.",
        )
    for name, key in by_name.items():
        if name in robot.cameras:
            yield from _picture(layout, key, robot)
        else:
            yield doubt(
                "dataset-camera-left-out",
                f"camera {name!r} of {layout.path} is not in {robot.name}: the policy is blind "
                "to it.",
                "Add it to the description, or leave it out knowingly.",
                feature=key,
            )


def _picture(layout: Layout, key: str, robot: Embodiment) -> Iterator[Finding]:
    feature = layout.features[key]
    axes = picture_axes(feature)
    if axes["channels"] != 3:
        yield error(
            "dataset-mismatch",
            f"{key} has the shape {feature['shape']} and so {axes['channels']} channels; "
            "a policy's cameras have three colours.",
            "Leave depth and grey cameras out of the robot's description.",
            feature=key,
        )
        return
    described = feature.get("info")
    if isinstance(described, Mapping) and any(described.get(key) for key in _DEPTH_KEYS):
        yield error(
            "dataset-mismatch",
            f"{key} is a depth map; a policy's cameras have three colours.",
            "Leave depth and grey cameras out of the robot's description.",
            feature=key,
        )
        return
    height, width = axes["height"], axes["width"]
    wanted = robot.sizes[robot.cameras.index(camera_name(key))]
    if (height, width) == wanted:
        return
    change = (wanted[1] / wanted[0]) / (width / height) - 1
    what = (
        f"{key} is {height} x {width} in {layout.path}, {wanted[0]} x {wanted[1]} in {robot.name}"
    )
    if abs(change) > _ASPECT_TOLERANCE:
        yield doubt(
            "dataset-image-size",
            f"{what}: resizing distorts it (its width by {change:+.0%} against its height).",
            "Give the description the cameras' ratio of width to height; the robot has to resize "
            "in the same way.",
            feature=key,
        )
    elif height < wanted[0]:
        yield doubt(
            "dataset-image-size",
            f"{what}: it is enlarged, which adds nothing that a policy could see.",
            "Give the description the cameras' size or less.",
            feature=key,
        )
    else:
        yield note(
            "dataset-image-size",
            f"{what}: resized by the mean of the pixels.",
            "The robot has to resize in the same way.",
            feature=key,
        )


def _rate(layout: Layout, robot: Embodiment) -> Iterator[Finding]:
    if layout.fps != robot.control_hz:
        yield error(
            "dataset-mismatch",
            f"control rate in Hz: {layout.fps:g} in {layout.path}, {robot.control_hz:g} in "
            f"{robot.name}.",
            "Give the description the dataset's rate, or record at the robot's.",
        )
