"""From a dataset and a recipe to a trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from libra_edge.atomic import new_file
from libra_edge.data.examine import examine
from libra_edge.data.findings import Finding
from libra_edge.data.lerobot import Dataset
from libra_edge.data.lerobot_writer import ACTION_KEY, STATE_KEY
from libra_edge.errors import InputError
from libra_edge.paths import StrPath
from libra_edge.policy.checkpoint import (
    TOKENIZER,
    Checkpoint,
    Statistics,
    build_policy,
    load_checkpoint,
)
from libra_edge.policy.config import Embodiment
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.policy.tokenizer import Tokenizer, word_tokenizer
from libra_edge.training.config import TrainingRecipe
from libra_edge.training.expect import expectation
from libra_edge.training.frames import FramePlan, plan_frames, store_frames
from libra_edge.training.trainer import RESUME, Trainer
from libra_edge.training.windows import Track, Windows


@dataclass(frozen=True)
class Progress:
    """What `prepare` reports on the way.

    Attributes:
        on_findings: called with what the dataset's examination found.
        on_plan: called with what decoding the pictures will take, before it begins.
        on_step: called with the number of steps whose pictures were stored.
    """

    on_findings: Callable[[Sequence[Finding]], None] = lambda _: None
    on_plan: Callable[[FramePlan], None] = lambda _: None
    on_step: Callable[[int], None] = lambda _: None


def prepare(
    dataset_path: StrPath,
    recipe: TrainingRecipe,
    out: StrPath,
    *,
    resume: bool = False,
    start: StrPath | None = None,
    robot: StrPath | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Trainer:
    """Examine the dataset, store its pictures and build the trainer of `recipe`.

    The policy's robot is the dataset's own; its vocabulary, the words of its instructions; its
    statistics, those of the data. A run that starts from a checkpoint keeps that checkpoint's words
    and statistics.

    Args:
        dataset_path: LeRobot folder.
        recipe: what to train and how.
        out: the run's folder.
        resume: go on with the run in `out`.
        start: checkpoint whose weights to start from.
        robot: file with the robot's description; None for the one beside the dataset.
        strict: take doubts about the dataset for errors.
        progress: what to call on the way.

    Raises:
        InputError: the dataset, recipe or checkpoint is not usable, or `out` holds another run.
        LibraError: there is no room for the pictures.
    """
    out, progress = Path(out), progress or Progress()
    if not resume and (out / RESUME).exists():
        raise InputError(
            "run-exists", f"{out} already holds a training run.", "Add --resume, or name another."
        )
    checkpoint = None if start is None else load_checkpoint(Path(start))
    tokenizer = None if checkpoint is None else checkpoint.tokenizer
    found = examine(dataset_path, expectation(recipe, robot, needs_robot=True, tokenizer=tokenizer))
    progress.on_findings(found.findings)
    dataset = found.require(strict=strict)
    assert found.robot is not None, "without a robot the examination has an error"
    torch.manual_seed(recipe.training.seed)
    if checkpoint is None:
        policy, statistics, tokenizer_json = _new_policy(dataset, recipe, found.robot)
    else:
        policy, statistics, tokenizer_json = _trained_policy(checkpoint, recipe, found.robot)
    plan = plan_frames(dataset)
    progress.on_plan(plan)
    frames = store_frames(dataset, plan, out, progress.on_step)
    with new_file(out / TOKENIZER) as stream:
        stream.write(tokenizer_json.encode())
    windows = Windows(
        frames,
        [_track(dataset, number) for number in range(len(dataset.episodes))],
        policy.config,
        policy.state_affine,
        policy.action_affine,
        Tokenizer(out / TOKENIZER, policy.config.instruction_length),
    )
    trainer = Trainer(policy, windows, recipe.training, out, statistics, tokenizer_json)
    if resume:
        trainer.resume()
    return trainer


def _track(dataset: Dataset, number: int) -> Track:
    return Track(
        states=dataset.vectors(number, STATE_KEY),
        actions=dataset.vectors(number, ACTION_KEY),
        told=dataset.episodes[number].told,
    )


def _new_policy(
    dataset: Dataset, recipe: TrainingRecipe, embodiment: Embodiment
) -> tuple[LibraVLA, Statistics, str]:
    vocabulary = word_tokenizer(text for info in dataset.episodes for _, text in info.told)
    config = recipe.policy_config(vocabulary.get_vocab_size(), embodiment)
    statistics = {
        feature: {name: [float(v) for v in values] for name, values in table.items()}
        for feature, table in dataset.stats.items()
        if feature in (STATE_KEY, ACTION_KEY)
    }
    return build_policy(config, statistics), statistics, vocabulary.to_str(pretty=True) + "\n"


def _trained_policy(
    checkpoint: Checkpoint, recipe: TrainingRecipe, embodiment: Embodiment
) -> tuple[LibraVLA, Statistics, str]:
    start = checkpoint.path
    config = recipe.policy_config(checkpoint.config.vocabulary, embodiment)
    shown = {"real_time": config.real_time}
    if config != checkpoint.config.model_copy(update=shown):
        raise InputError(
            "start-mismatch",
            f"{start} is not the policy that the recipe and the dataset describe.",
            "Use the [policy] table it was trained with, and a dataset of the same robot.",
        )
    tokenizer_json = (start / TOKENIZER).read_text(encoding="utf-8")
    checkpoint.policy.config = config
    return checkpoint.policy.train(), checkpoint.statistics, tokenizer_json
