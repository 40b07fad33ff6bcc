"""Observations to compare engines on: frames of a dataset, or made up from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from libra_edge.data.extras import needs_extra
from libra_edge.paths import StrPath
from libra_edge.policy.config import Embodiment
from libra_edge.policy.execution.noise import chunk_noise
from libra_edge.policy.executor import Floats, Images, Instruction
from libra_edge.policy.time_structure import TimeStructure
from libra_edge.policy.tokenizer import Tokenizer

if TYPE_CHECKING:
    from libra_edge.data.lerobot import Dataset


@dataclass(frozen=True)
class Sample:
    """Inputs of one planner and one refiner call, in the engines' own shapes.

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
    contract: TimeStructure,
    tokenizer: Tokenizer | None,
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
    embodiment: Embodiment,
    contract: TimeStructure,
    tokenizer: Tokenizer | None,
    count: int,
    seed: int,
) -> list[Sample]:
    """Blurred colour noise, normal states and random words: no robot needed, always the same."""
    random = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        images = _made_up(embodiment, random)
        vocabulary, length = _words(tokenizer)
        words = random.integers(0, vocabulary, length)
        state = random.standard_normal(len(embodiment.state)).astype(np.float32)
        seen = [(images, state)]
        for _ in range(contract.observation_steps - 1):
            drift = random.standard_normal(len(embodiment.state)).astype(np.float32)
            seen.append((_made_up(embodiment, random), state + np.float32(0.1) * drift))
        samples.append(_sample(contract, seen, words, i, seed))
    return samples


def _words(tokenizer: Tokenizer | None) -> tuple[int, int]:
    """Size of the vocabulary and tokens of an instruction; 1 and 0 where there are no words."""
    return (1, 0) if tokenizer is None else (tokenizer.vocabulary, tokenizer.length)


def _made_up(embodiment: Embodiment, random: np.random.Generator) -> Images:
    """Blurred colour noise, one picture after another."""
    if embodiment.camera_sizes is None:
        size = (embodiment.image_height, embodiment.image_width)
        return _noise_pictures(len(embodiment.cameras), size, random)
    pictures = [_noise_pictures(1, size, random) for size in embodiment.camera_sizes]
    return np.concatenate([picture.reshape(-1) for picture in pictures])


def _noise_pictures(count: int, size: tuple[int, int], random: np.random.Generator) -> Images:
    coarse = random.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    rows, columns = (np.arange(side) * 8 // side for side in size)
    images = coarse[:, rows][:, :, columns]
    grain = random.integers(-20, 21, images.shape)
    return np.asarray(np.clip(images.astype(np.int64) + grain, 0, 255), dtype=np.uint8)


def edge_samples(
    embodiment: Embodiment, contract: TimeStructure, tokenizer: Tokenizer | None, seed: int
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
    words = np.zeros(_words(tokenizer)[1], dtype=np.int64)
    states = [np.full(len(embodiment.state), value) for value in (0.0, 1e3, -1e3)]
    return [
        _sample(
            contract,
            [(_as_taken(picture.astype(np.uint8), embodiment), state.astype(np.float32))]
            * contract.observation_steps,
            words,
            number,
            seed,
        )
        for number, (picture, state) in enumerate((p, s) for p in pictures for s in states)
    ]


def dataset_samples(
    dataset: Dataset,
    embodiment: Embodiment,
    contract: TimeStructure,
    tokenizer: Tokenizer | None,
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
        samples.append(sample_at(dataset, contract, tokenizer, index, i, seed))
    return samples


def sample_at(
    dataset: Dataset,
    contract: TimeStructure,
    tokenizer: Tokenizer | None,
    index: int,
    number: int,
    seed: int,
) -> Sample:
    """What an engine would get at one frame of a dataset.

    Args:
        dataset: to read from.
        contract: of the policy.
        tokenizer: None where it takes no words.
        index: of the frame.
        number: of the sample, which its noise and its chunk of the plan depend on.
        seed: of the noise.
    """
    episode, step = dataset.place(index)
    back = range(contract.observation_steps - 1, -1, -1)
    frames = [dataset.frame(index - min(steps, step))[0] for steps in back]
    seen = [(frame.images, frame.state) for frame in frames]
    words = np.zeros(0, np.int64)
    if tokenizer is not None:
        words = tokenizer.encode(frames[-1].instruction)
    sample = _sample(contract, seen, words, number, seed)
    return replace(sample, origin=f"episode {episode}, step {step}")


def _as_taken(images: Images, embodiment: Embodiment) -> Images:
    """Pictures [V, h, w, 3] of the largest size, each cut to its camera's where those differ."""
    if embodiment.camera_sizes is None:
        return images
    pairs = zip(images, embodiment.camera_sizes, strict=True)
    return np.concatenate([image[:h, :w].reshape(-1) for image, (h, w) in pairs])


def _sample(
    contract: TimeStructure,
    seen: Sequence[tuple[Images, Floats]],
    instruction: Instruction,
    number: int,
    seed: int,
) -> Sample:
    """From the observations of the last S steps, the newest last."""
    noise = chunk_noise(seed, number, contract.noise_shape)
    images, states = zip(*seen, strict=True)
    alone = len(seen) == 1
    return Sample(
        images[0] if alone else np.stack(images),
        instruction,
        states[0] if alone else np.stack(states),
        noise,
        number % contract.chunks_per_plan,
    )
