"""From a dataset and a recipe to a trainer."""

from __future__ import annotations

from pathlib import Path

import torch

from libra_edge.atomic import new_file
from libra_edge.data.lerobot import Dataset
from libra_edge.errors import InputError
from libra_edge.policy.checkpoint import TOKENIZER, build_policy
from libra_edge.policy.tokenizer import Tokenizer, word_tokenizer
from libra_edge.training.config import TrainingRecipe
from libra_edge.training.trainer import RESUME, Trainer
from libra_edge.training.windows import Windows


def prepare(dataset_path: Path, recipe: TrainingRecipe, out: Path, *, resume: bool) -> Trainer:
    """Read the dataset and build the trainer of `recipe`.

    The policy's robot is the dataset's own; its vocabulary, the words of its instructions.

    Args:
        dataset_path: LeRobot v3 folder.
        recipe: what to train and how.
        out: the run's folder.
        resume: go on with the run in `out`.

    Raises:
        InputError: the dataset or recipe is not usable, or `out` holds another run.
    """
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
    out.mkdir(parents=True, exist_ok=True)
    vocabulary = word_tokenizer(info.instruction for info in dataset.episodes)
    tokenizer_json = vocabulary.to_str(pretty=True) + "\n"
    config = recipe.policy_config(vocabulary.get_vocab_size(), embodiment)
    statistics = {
        feature: {name: [float(v) for v in values] for name, values in table.items()}
        for feature, table in dataset.stats.items()
        if feature in ("observation.state", "action")
    }
    torch.manual_seed(recipe.training.seed)
    policy = build_policy(config, statistics)
    with new_file(out / TOKENIZER) as stream:
        stream.write(tokenizer_json.encode())
    windows = Windows(
        (dataset.episode(i) for i in range(len(dataset.episodes))),
        config,
        policy.state_affine,
        policy.action_affine,
        Tokenizer(out / TOKENIZER, config.instruction_length),
    )
    trainer = Trainer(policy, windows, recipe.training, out, statistics, tokenizer_json)
    if resume:
        trainer.resume()
    return trainer
