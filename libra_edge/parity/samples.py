"""Observations to compare engines on: frames of a dataset, or made up from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np

from libra_edge.data.extras import needs_extra
from libra_edge.paths import StrPath
from libra_edge.policy.config import Embodiment
from libra_edge.policy.execution.noise import chunk_noise
from libra_edge.policy.executor import Floats, Images, Instruction
from libra_edge.policy.tokenizer import Tokenizer

if TYPE_CHECKING:
    from libra_edge.data.lerobot import Dataset


class Contract(Protocol):
    """The part of a policy's configuration that shapes samples; a manifest has it too."""

    @property
    def chunk(self) -> int:
        """H."""
        ...

    @property
    def chunks_per_plan(self) -> int:
        """M."""
        ...


@dataclass(frozen=True)
class Sample:
    """Inputs of one planner and one refiner call.

    `part` says which of the plan's M chunks the refiner gets the intents of; `origin`, in words,
    where the observation is from.
    """

    images: Images
    instruction: Instruction
    state: Floats
    noise: Floats
    part: int
    origin: str = ""


def choose_samples(
    embodiment: Embodiment,
    contract: Contract,
    tokenizer: Tokenizer,
    count: int,
    seed: int,
    data: StrPath | None,
) -> list[Sample]:
    """`count` samples: of the LeRobot dataset `data`, else made up.

    Raises:
        InputError: the dataset cannot be read or is not this robot's.
    """
    if data is None:
        return synthetic_samples(embodiment, contract, tokenizer, count, seed)
    with needs_extra("train", "Reading a dataset"):
        from libra_edge.data.examine import open_dataset
    dataset = open_dataset(data, embodiment, tokenizer)
    return dataset_samples(dataset, embodiment, contract, tokenizer, count, seed)


def synthetic_samples(
    embodiment: Embodiment, contract: Contract, tokenizer: Tokenizer, count: int, seed: int
) -> list[Sample]:
    """Blurred colour noise, normal states and random words: no robot needed, always the same."""
    random = np.random.default_rng(seed)
    shape = (embodiment.image_height, embodiment.image_width)
    samples = []
    for i in range(count):
        coarse = random.integers(0, 256, (len(embodiment.cameras), 8, 8, 3), dtype=np.uint8)
        rows, columns = (np.arange(size) * 8 // size for size in shape)
        images = coarse[:, rows][:, :, columns]
        grain = random.integers(-20, 21, images.shape)
        words = random.integers(0, tokenizer.vocabulary, tokenizer.length)
        state = random.standard_normal(len(embodiment.state)).astype(np.float32)
        images = np.clip(images.astype(np.int64) + grain, 0, 255).astype(np.uint8)
        samples.append(_sample(embodiment, contract, images, words, state, i, seed))
    return samples


def edge_samples(
    embodiment: Embodiment, contract: Contract, tokenizer: Tokenizer, seed: int
) -> list[Sample]:
    """What a broken camera or sensor sends: dark, blinding, flickering, far out of range."""
    shape = (len(embodiment.cameras), embodiment.image_height, embodiment.image_width, 3)
    rows, columns = np.indices(shape[1:3])
    chequered = np.broadcast_to(((rows + columns) % 2 * 255)[None, :, :, None], shape)
    pictures = [np.zeros(shape), np.full(shape, 255), chequered]
    for camera in range(shape[0]):
        covered = np.full(shape, 128)
        covered[camera] = 0
        pictures.append(covered)
    words = np.zeros(tokenizer.length, dtype=np.int64)
    states = [np.full(len(embodiment.state), value) for value in (0.0, 1e3, -1e3)]
    return [
        _sample(
            embodiment,
            contract,
            picture.astype(np.uint8),
            words,
            state.astype(np.float32),
            number,
            seed,
        )
        for number, (picture, state) in enumerate((p, s) for p in pictures for s in states)
    ]


def dataset_samples(
    dataset: Dataset,
    embodiment: Embodiment,
    contract: Contract,
    tokenizer: Tokenizer,
    count: int,
    seed: int,
) -> list[Sample]:
    """Up to `count` frames, one at random from each of as many equal stretches of the dataset.

    Raises:
        InputError: the dataset is of another robot, or has an instruction the policy cannot read.
    """
    dataset.check_matches(embodiment)
    count = min(count, len(dataset))
    edges = np.linspace(0, len(dataset), count + 1).astype(np.int64)
    random = np.random.default_rng(seed)
    samples = []
    for i, (first, end) in enumerate(pairwise(edges)):
        index = int(random.integers(first, end))
        observation, _ = dataset.frame(index)
        words = tokenizer.encode(observation.instruction)
        sample = _sample(
            embodiment, contract, observation.images, words, observation.state, i, seed
        )
        episode, step = dataset.place(index)
        samples.append(replace(sample, origin=f"episode {episode}, step {step}"))
    return samples


def _sample(
    embodiment: Embodiment,
    contract: Contract,
    images: Images,
    instruction: Instruction,
    state: Floats,
    number: int,
    seed: int,
) -> Sample:
    noise = chunk_noise(seed, number, (contract.chunk, len(embodiment.actions)))
    return Sample(images, instruction, state, noise, number % contract.chunks_per_plan)
