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
from libra_edge.policy.libra_vla.pretrained.config import CompactBackboneConfig
from libra_edge.policy.tokenizer import Tokenizer, word_tokenizer
from libra_edge.training.config import TrainingRecipe
from libra_edge.training.expect import expectation
from libra_edge.training.frames import FramePlan, plan_frames, store_frames
from libra_edge.training.pretrained import Sources, with_parts
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
    backbone: StrPath | None = None,
    eyes: StrPath | None = None,
    progress: Progress | None = None,
) -> Trainer:
    """Examine the dataset, store its pictures and build the trainer of `recipe`.

    The policy's robot is the dataset's own; its vocabulary, the words of its instructions or the
    backbone's; its statistics, those of the data. A run that starts from a checkpoint keeps that
    checkpoint's words and statistics.

    Args:
        dataset_path: LeRobot folder.
        recipe: what to train and how.
        out: the run's folder.
        resume: go on with the run in `out`.
        start: checkpoint whose weights to start from.
        robot: file with the robot's description; None for the one beside the dataset.
        strict: take doubts about the dataset for errors.
        backbone: folder of a pretrained vision-language model that the planner starts from.
        eyes: folder of a pretrained picture encoder that the refiner starts from.
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
    sources = Sources(*(None if folder is None else Path(folder) for folder in (backbone, eyes)))
    checkpoint = _start(start, sources)
    tokenizer = _known_words(recipe, checkpoint, sources)
    own = checkpoint is None
    found = examine(
        dataset_path,
        expectation(recipe, robot, needs_robot=True, tokenizer=tokenizer, own_statistics=own),
    )
    progress.on_findings(found.findings)
    dataset = found.require(strict=strict)
    assert found.robot is not None, "without a robot the examination has an error"
    torch.manual_seed(recipe.training.seed)
    if checkpoint is None:
        policy, statistics, tokenizer_json = _new_policy(dataset, recipe, found.robot, sources)
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


def _start(start: StrPath | None, sources: Sources) -> Checkpoint | None:
    """The checkpoint to start from, if one is named.

    Raises:
        InputError: it cannot be read, or pretrained models were named beside it.
    """
    if start is None:
        return None
    if sources != Sources():
        raise InputError(
            "usage",
            "--backbone and --eyes are for new policies; a checkpoint holds its own.",
            "Leave them out, or --from.",
        )
    return load_checkpoint(Path(start))


def _known_words(
    recipe: TrainingRecipe, checkpoint: Checkpoint | None, sources: Sources
) -> Tokenizer | None:
    """The tokenizer that the dataset's instructions have to suit; None for one of their own words.

    Raises:
        InputError: a pretrained model's folder is not usable.
    """
    if checkpoint is not None:
        return checkpoint.tokenizer
    # Everything about the folders that does not depend on the robot, before the data is read.
    sources.describe(recipe, cameras=1)
    return sources.words(recipe)


def _new_policy(
    dataset: Dataset, recipe: TrainingRecipe, embodiment: Embodiment, sources: Sources
) -> tuple[LibraVLA, Statistics, str]:
    recipe = sources.describe(recipe, len(embodiment.cameras))
    tokenizer = sources.words(recipe)
    if tokenizer is None:
        words = word_tokenizer(text for info in dataset.episodes for _, text in info.told)
        vocabulary, text = words.get_vocab_size(), words.to_str(pretty=True) + "\n"
    else:
        vocabulary, text = tokenizer.vocabulary, tokenizer.text
    config = recipe.policy_config(vocabulary, embodiment)
    statistics = {
        feature: {name: [float(v) for v in values] for name, values in table.items()}
        for feature, table in dataset.stats.items()
        if feature in (STATE_KEY, ACTION_KEY)
    }
    policy = build_policy(config, statistics)
    sources.load(policy)
    return policy, statistics, text


def _trained_policy(
    checkpoint: Checkpoint, recipe: TrainingRecipe, embodiment: Embodiment
) -> tuple[LibraVLA, Statistics, str]:
    start, own = checkpoint.path, checkpoint.config
    backbone, refiner = own.planner.backbone, own.refiner
    recipe = with_parts(
        recipe,
        None if isinstance(backbone, CompactBackboneConfig) else backbone.model_dump(),
        None if refiner is None or refiner.eyes is None else refiner.eyes.model_dump(),
    )
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
