"""From a dataset and a recipe to a trainer."""

from __future__ import annotations

from pathlib import Path

import torch

from libra_edge.atomic import new_file
from libra_edge.data.lerobot import Dataset
from libra_edge.errors import InputError
from libra_edge.paths import StrPath
from libra_edge.policy.checkpoint import TOKENIZER, Statistics, build_policy, load_checkpoint
from libra_edge.policy.config import Embodiment
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.policy.tokenizer import Tokenizer, word_tokenizer
from libra_edge.training.config import TrainingRecipe
from libra_edge.training.trainer import RESUME, Trainer
from libra_edge.training.windows import Windows


def prepare(
    dataset_path: StrPath,
    recipe: TrainingRecipe,
    out: StrPath,
    *,
    resume: bool = False,
    start: StrPath | None = None,
) -> Trainer:
    """Read the dataset and build the trainer of `recipe`.

    The policy's robot is the dataset's own; its vocabulary, the words of its instructions. A run
    that starts from a checkpoint keeps that checkpoint's words and statistics.

    Args:
        dataset_path: LeRobot v3 folder.
        recipe: what to train and how.
        out: the run's folder.
        resume: go on with the run in `out`.
        start: checkpoint whose weights to start from.

    Raises:
        InputError: the dataset, recipe or checkpoint is not usable, or `out` holds another run.
    """
    dataset_path = Path(dataset_path)
    out = Path(out)
    start = None if start is None else Path(start)
    if not resume and (out / RESUME).exists():
        raise InputError(
            "run-exists", f"{out} already holds a training run.", "Add --resume, or name another."
        )
    dataset = Dataset(dataset_path)
    embodiment = dataset.embodiment
    if embodiment is None:
        raise InputError(
            "embodiment-missing",
            f"{dataset_path} does not describe its robot's action limits and units.",
            "Add meta/libra_edge.json with its embodiment, as libra-edge collect writes it.",
        )
    torch.manual_seed(recipe.training.seed)
    if start is None:
        policy, statistics, tokenizer_json = _new_policy(dataset, recipe, embodiment)
    else:
        policy, statistics, tokenizer_json = _trained_policy(start, recipe, embodiment)
    with new_file(out / TOKENIZER) as stream:
        stream.write(tokenizer_json.encode())
    windows = Windows(
        (dataset.episode(i) for i in range(len(dataset.episodes))),
        policy.config,
        policy.state_affine,
        policy.action_affine,
        Tokenizer(out / TOKENIZER, policy.config.instruction_length),
    )
    trainer = Trainer(policy, windows, recipe.training, out, statistics, tokenizer_json)
    if resume:
        trainer.resume()
    return trainer


def _new_policy(
    dataset: Dataset, recipe: TrainingRecipe, embodiment: Embodiment
) -> tuple[LibraVLA, Statistics, str]:
    vocabulary = word_tokenizer(info.instruction for info in dataset.episodes)
    config = recipe.policy_config(vocabulary.get_vocab_size(), embodiment)
    statistics = {
        feature: {name: [float(v) for v in values] for name, values in table.items()}
        for feature, table in dataset.stats.items()
        if feature in ("observation.state", "action")
    }
    return build_policy(config, statistics), statistics, vocabulary.to_str(pretty=True) + "\n"


def _trained_policy(
    start: Path, recipe: TrainingRecipe, embodiment: Embodiment
) -> tuple[LibraVLA, Statistics, str]:
    checkpoint = load_checkpoint(start)
    if recipe.policy_config(checkpoint.config.vocabulary, embodiment) != checkpoint.config:
        raise InputError(
            "start-mismatch",
            f"{start} is not the policy that the recipe and the dataset describe.",
            "Use the [policy] table it was trained with, and a dataset of the same robot.",
        )
    tokenizer_json = (start / TOKENIZER).read_text(encoding="utf-8")
    return checkpoint.policy.train(), checkpoint.statistics, tokenizer_json
