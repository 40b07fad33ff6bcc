"""The robot that a folder's policy drives: what the folder says, and what only a person knows."""

from __future__ import annotations

from dataclasses import replace

from libra_edge.errors import InputError
from libra_edge.policy.config import Embodiment
from libra_edge.policy.lerobot.folder import Folder


def fitted(folder: Folder, robot: Embodiment | None) -> Embodiment:
    """The robot's description with cameras in the policy's order and in the policy's sizes.

    Raises:
        InputError: there is none, or it is of another robot.
    """
    if robot is None:
        raise InputError(
            "robot-missing",
            f"{folder.path} does not say the limits, kinds, units and the rate of the robot.",
            "Draft them from the dataset with `libra-edge dataset describe DATASET`, correct them, "
            "and name the file: --robot FILE.",
        )
    for what, described, needed in (
        ("state", len(robot.state), folder.state_dim),
        ("action", len(robot.actions), folder.action_dim),
    ):
        if described != needed:
            raise _differs(
                f"The robot's description has {described} {what} dimensions, {folder.path} {needed}"
            )
    if set(robot.cameras) != set(folder.cameras):
        raise _differs(
            f"The robot's description has the cameras {', '.join(robot.cameras)}, {folder.path} "
            f"{', '.join(folder.cameras)}"
        )
    described_sizes = dict(zip(robot.cameras, robot.sizes, strict=True))
    for name, (_, size) in folder.cameras.items():
        if described_sizes[name] != size:
            raise _differs(
                f"Camera {name} has {size[0]} x {size[1]} pixels (height x width) in {folder.path} "
                f"and {' x '.join(map(str, described_sizes[name]))} in the robot's description",
                "Correct the description: image_height and image_width, or camera_sizes, a list of "
                "[height, width], where cameras differ.",
            )
    sizes = tuple(size for _, size in folder.cameras.values())
    return robot.model_copy(
        update={
            "cameras": tuple(folder.cameras),
            "camera_sizes": sizes if len(set(sizes)) > 1 else None,
        }
    )


def _differs(
    fact: str, remedy: str = "Name the description of the robot it was trained for."
) -> InputError:
    return InputError("robot-differs", f"{fact}.", remedy)


def without_empty(folder: Folder, robot: Embodiment | None, allowed: int) -> Folder:
    """The folder without the cameras that it has and the robot has not.

    LeRobot masks a camera that is missing, as many as `empty_cameras` allows: nothing sees it, so
    it can be left out.

    Args:
        folder: to read from.
        robot: its description.
        allowed: `empty_cameras`.
    """
    if robot is None:
        return folder
    missing = [name for name in folder.cameras if name not in robot.cameras]
    if len(missing) > allowed or len(missing) == len(folder.cameras):
        return folder
    cameras = {name: one for name, one in folder.cameras.items() if name not in missing}
    return replace(folder, cameras=cameras)
