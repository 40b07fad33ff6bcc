"""What a dataset has to be for a training recipe."""

from __future__ import annotations

from os import PathLike

from libra_edge.data.examine import Expectation
from libra_edge.data.lerobot.robot import RobotFile, read_robot
from libra_edge.paths import StrPath
from libra_edge.policy.tokenizer import Tokenizer
from libra_edge.training.config import TrainingRecipe


def expectation(
    recipe: TrainingRecipe,
    robot: StrPath | RobotFile | None = None,
    *,
    needs_robot: bool = False,
    tokenizer: Tokenizer | None = None,
    own_statistics: bool = True,
) -> Expectation:
    """What to examine a dataset for.

    Args:
        recipe: its normalisation and length of instructions.
        robot: description of the robot, or its file; None for the one beside the dataset.
        needs_robot: whether a dataset without a description stops.
        tokenizer: of the checkpoint or the backbone that training starts from; None for the
            dataset's own words.
        own_statistics: whether the dataset's statistics are the policy's; else a checkpoint's are.

    Raises:
        InputError: the description or the recipe is not valid.
    """
    described = read_robot(robot) if isinstance(robot, str | PathLike) else robot
    return Expectation(
        robot=None if described is None else described.embodiment,
        guessed=() if described is None else described.guessed,
        needs_robot=needs_robot,
        normalization=recipe.normalization if own_statistics else None,
        tokenizer=tokenizer,
        instruction_length=recipe.instruction_length,
    )
