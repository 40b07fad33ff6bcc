"""A dataset examined before it is used: one function for every command that reads one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from libra_edge.data.examine.pictures import check_pictures
from libra_edge.data.examine.span import check_span
from libra_edge.data.examine.stored import check_stored
from libra_edge.data.examine.tables import check_files, check_tables
from libra_edge.data.examine.told import check_instructions
from libra_edge.data.examine.values import (
    check_finite,
    check_limits,
    check_shape,
    check_state_units,
    check_stillness,
    gather,
)
from libra_edge.data.findings import DatasetDoubt, Finding, doubt, error, from_error, require
from libra_edge.data.lerobot.dataset import Dataset
from libra_edge.data.lerobot.index import read_layout
from libra_edge.data.lerobot.layout import Layout, camera_name
from libra_edge.data.lerobot.match import match_robot
from libra_edge.data.lerobot.robot import read_robot
from libra_edge.data.lerobot_writer import ACTION_KEY, EXTRA_PATH, STATE_KEY
from libra_edge.errors import InputError
from libra_edge.paths import StrPath
from libra_edge.policy.config import Embodiment, NormalizationConfig, PolicyConfig
from libra_edge.policy.tokenizer import Tokenizer

_LONGEST: int = PolicyConfig.model_fields["instruction_length"].default


@dataclass(frozen=True)
class Expectation:
    """What a dataset is examined for.

    Attributes:
        robot: the robot; None takes the description beside the dataset.
        guessed: keys of that description that a draft guessed and nobody confirmed.
        needs_robot: whether a dataset without a description stops.
        normalization: which statistics will span states and actions; None where the policy
            brings its own.
        tokenizer: of the policy; None for one of the dataset's own words.
        instruction_length: tokens the policy takes, where there is no tokenizer yet.
    """

    robot: Embodiment | None = None
    guessed: tuple[str, ...] = ()
    needs_robot: bool = False
    normalization: NormalizationConfig | None = field(default_factory=NormalizationConfig)
    tokenizer: Tokenizer | None = None
    instruction_length: int = _LONGEST


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        path: the dataset's folder.
        robot: the robot it was held against, if there is one.
        dataset: opened for that robot; None where it could not be.
        findings: errors, doubts and notes, in the order they were met.
    """

    path: Path
    robot: Embodiment | None
    dataset: Dataset | None
    findings: tuple[Finding, ...]

    def count(self, level: str) -> int:
        """How many findings are of a level."""
        return sum(finding.level == level for finding in self.findings)

    def require(self, *, strict: bool = False) -> Dataset:
        """The dataset, if nothing stops it.

        Raises:
            InputError: the first error; under `strict` also the first doubt.
        """
        require(self.findings, strict=strict)
        assert self.dataset is not None, "a dataset that cannot be opened has an error"
        return self.dataset

    def to_json(self) -> dict[str, Any]:
        """Path, counts and findings."""
        return {
            "path": str(self.path),
            "robot": None if self.robot is None else self.robot.name,
            "errors": self.count("error"),
            "doubts": self.count("doubt"),
            "findings": [finding.to_json() for finding in self.findings],
        }


def examine(path: StrPath, expected: Expectation | None = None) -> Examination:
    """Examine a LeRobot dataset: files, tables, values, instructions, pictures, robot.

    Every row of the tables is read and every video's index; of the pictures, some are decoded.
    Nothing is raised for what the dataset holds: it becomes a finding.

    Args:
        path: the dataset's folder.
        expected: what for; None for training with a recipe of defaults.
    """
    path, expected = Path(path), expected or Expectation()
    try:
        layout = read_layout(path)
    except InputError as caught:
        return Examination(path, expected.robot, None, (from_error(caught),))
    robot, findings = _robot(path, expected)
    if robot is not None:
        findings += match_robot(layout, robot)
    findings += check_files(layout)
    if any(finding.level == "error" for finding in findings):
        return Examination(path, robot, None, tuple(findings))
    try:
        dataset = Dataset(path, robot)
        findings += _contents(dataset, robot, expected)
    except InputError as caught:
        return Examination(path, robot, None, (*findings, from_error(caught)))
    return Examination(path, robot, dataset, tuple(findings))


def open_dataset(path: StrPath, robot: Embodiment, tokenizer: Tokenizer | None = None) -> Dataset:
    """A dataset examined for a policy that exists, opened for its robot.

    Args:
        path: the dataset's folder.
        robot: the policy's.
        tokenizer: the policy's; None does not look at the instructions' words.

    Raises:
        InputError: the first error that the examination found.

    Warns:
        DatasetDoubt: for every doubt.
    """
    path = Path(path)
    found = _examined_once(path, _state_of(path), robot, tokenizer)
    for finding in found.findings:
        if finding.level == "doubt":
            warnings.warn(DatasetDoubt.of(finding), stacklevel=2)
    found.require()
    return Dataset(path, robot)


@lru_cache(maxsize=8)
def _examined_once(
    path: Path, state: int, robot: Embodiment, tokenizer: Tokenizer | None
) -> Examination:
    """Commands open the same dataset several times; `state` changes when a file of it does."""
    longest = 2**31 if tokenizer is None else tokenizer.length
    return examine(
        path,
        Expectation(robot, normalization=None, tokenizer=tokenizer, instruction_length=longest),
    )


def _state_of(path: Path) -> int:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return hash(tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files))


def _robot(path: Path, expected: Expectation) -> tuple[Embodiment | None, list[Finding]]:
    """The robot to hold the dataset against, and what is wrong with its description."""
    if expected.robot is not None:
        return expected.robot, list(_guesses(expected.guessed, "the robot's description"))
    file = path / EXTRA_PATH
    if not file.exists() and not file.is_symlink():
        report = error if expected.needs_robot else doubt
        missing = report(
            "embodiment-missing",
            f"{path} does not describe its robot: units, limits and kinds of its actions.",
            f"Draft a description with `libra-edge dataset describe {path}`, correct it, and keep "
            f"it as {EXTRA_PATH} or name it with --robot.",
        )
        return None, [missing]
    try:
        described = read_robot(file)
    except InputError as caught:
        return None, [from_error(caught)]
    return described.embodiment, list(_guesses(described.guessed, str(file)))


def _guesses(keys: tuple[str, ...], file: str) -> Iterator[Finding]:
    """A draft whose guesses nobody has confirmed."""
    if keys:
        yield doubt(
            "robot-description-guessed",
            f"{file}: {len(keys)} values were guessed and not confirmed, {keys[0]} for example.",
            "Correct them, and delete the key `guessed` from the file.",
        )


def _contents(dataset: Dataset, robot: Embodiment | None, expected: Expectation) -> list[Finding]:
    """What is inside, cheapest first; later checks rest on earlier ones."""
    found = list(check_tables(dataset))
    if any(finding.level == "error" for finding in found):
        return found
    found += check_instructions(dataset, expected.tokenizer, expected.instruction_length)
    for key in (STATE_KEY, ACTION_KEY):
        found += _values(dataset, key, robot, expected)
    return found + list(check_pictures(dataset, _cameras(dataset.layout, robot)))


def _values(
    dataset: Dataset, key: str, robot: Embodiment | None, expected: Expectation
) -> list[Finding]:
    rows, places = gather(dataset, key)
    found = [*check_shape(dataset, key, rows), *check_finite(dataset, key, rows, places)]
    if found:
        return found
    found += check_stored(dataset, key, rows)
    found += check_stillness(dataset, key, rows)
    if robot is None:
        return found
    if expected.normalization is not None:
        found += check_span(dataset, key, rows, robot, expected.normalization)
    if key == ACTION_KEY:
        return [*found, *check_limits(dataset, rows, places, robot)]
    return [*found, *check_state_units(rows, robot.state)]


def _cameras(layout: Layout, robot: Embodiment | None) -> list[str]:
    """The features whose pictures will be seen."""
    return [key for key in layout.cameras if robot is None or camera_name(key) in robot.cameras]


__all__ = ["DatasetDoubt", "Examination", "Expectation", "Finding", "examine", "open_dataset"]
