"""Folders that others have written, with what they do not hold: robot, words, backbone."""

from __future__ import annotations

from pathlib import Path

from libra_edge.data.lerobot.robot import read_robot
from libra_edge.data.lerobot_writer import EXTRA_PATH
from libra_edge.errors import InputError
from libra_edge.policy.checkpoint import load_checkpoint
from libra_edge.policy.family import Family, ReadOptions
from libra_edge.policy.imported import AnyCheckpoint, Imported, family_of, read_imported


def import_folder(
    family: Family,
    folder: Path,
    *,
    robot: Path | None = None,
    data: Path | None = None,
    tokenizer: Path | None = None,
    vlm_config: Path | None = None,
) -> Imported:
    """Read a folder of another family than our own.

    Args:
        family: that knows it.
        folder: to read.
        robot: the robot's description; None takes the dataset's.
        data: a dataset, which may hold that description.
        tokenizer: what the folder may only name.
        vlm_config: likewise.

    Raises:
        InputError: anything that does not fit.
    """
    if robot is None and data is not None and (data / EXTRA_PATH).is_file():
        robot = data / EXTRA_PATH
    described = None if robot is None else read_robot(robot).embodiment
    return read_imported(family, folder, ReadOptions(described, tokenizer, vlm_config))


def read_any(
    folder: Path,
    *,
    robot: Path | None = None,
    data: Path | None = None,
    tokenizer: Path | None = None,
    vlm_config: Path | None = None,
) -> AnyCheckpoint:
    """Read a checkpoint of whatever family; arguments as for `import_folder`.

    Raises:
        InputError: anything that does not fit.
    """
    family = family_of(folder)
    options = {"robot": robot, "tokenizer": tokenizer, "vlm_config": vlm_config}
    if family is not None:
        return import_folder(family, folder, data=data, **options)
    require_none(folder, options)
    return load_checkpoint(folder)


def require_none(folder: Path, options: dict[str, Path | None]) -> None:
    """Refuse what a checkpoint of our own holds itself.

    Raises:
        InputError: an option was given.
    """
    for option, value in options.items():
        if value is not None:
            raise InputError(
                "usage",
                f"--{option.replace('_', '-')} is for policies that do not hold it; {folder} is a "
                "checkpoint of Libra Edge's own.",
                "Leave it out.",
            )
