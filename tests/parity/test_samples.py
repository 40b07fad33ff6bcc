"""Observations for the gates: the same each time, and of the right robot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from libra_edge.data.lerobot_writer import DatasetWriter
from libra_edge.data.types import Episode
from libra_edge.errors import InputError
from libra_edge.parity.samples import Sample, choose_samples
from libra_edge.policy.tokenizer import Tokenizer
from tests.tiny import INSTRUCTIONS, tiny_config, write_tiny_checkpoint

CONFIG = tiny_config()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("samples") / "checkpoint")
    return Tokenizer(folder / "tokenizer.json", CONFIG.instruction_length)


def write_dataset(path: Path, instruction: str = INSTRUCTIONS[0], states: int = 3) -> Path:
    robot = CONFIG.embodiment
    body = robot.model_copy(update={"state": (robot.state * 2)[:states]}) if states < 3 else robot
    random = np.random.default_rng(0)
    with DatasetWriter(path, body, "lossless", {}) as writer:
        for length in (6, 9):
            writer.add(
                Episode(
                    images=random.integers(0, 256, (length, 2, 16, 24, 3), dtype=np.uint8),
                    states=random.normal(size=(length, states)).astype(np.float32),
                    actions=random.uniform(-0.4, 0.4, (length, 3)).astype(np.float32),
                    instruction=instruction,
                    task="t",
                    success=True,
                    seed=0,
                )
            )
    return path


def choose(tokenizer: Tokenizer, count: int, seed: int, data: Path | None) -> list[Sample]:
    return choose_samples(CONFIG.embodiment, CONFIG, tokenizer, count, seed, data)


def same(left: Sample, right: Sample) -> bool:
    return all(
        np.array_equal(getattr(left, name), getattr(right, name))
        for name in ("images", "instruction", "state", "noise")
    )


def test_made_up_samples(tokenizer: Tokenizer) -> None:
    first, again, other = (choose(tokenizer, 5, seed, None) for seed in (0, 0, 1))
    assert all(map(same, first, again))
    assert not any(map(same, first, other))
    assert [sample.part for sample in first] == [0, 1, 0, 1, 0]
    sample = first[0]
    assert sample.images.shape == (2, 16, 24, 3)
    assert sample.images.dtype == np.uint8
    assert sample.images.std() > 30
    assert sample.instruction.dtype == np.int64
    assert sample.instruction.max() < tokenizer.vocabulary
    assert sample.noise.shape == (3, 3)
    assert not np.array_equal(first[0].noise, first[1].noise)


def test_samples_of_a_dataset_are_spread_over_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data")
    samples = choose(tokenizer, 5, 0, data)
    assert len(samples) == 5
    assert len(choose(tokenizer, 99, 0, data)) == 15, "no frame twice"
    np.testing.assert_array_equal(samples[0].instruction, tokenizer.encode(INSTRUCTIONS[0]))


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"instruction": "sing a song"}, "instruction-unknown"), ({"states": 2}, "dataset-mismatch")],
)
def test_a_dataset_of_something_else_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, changes: dict[str, object], code: str
) -> None:
    data = write_dataset(tmp_path / "data", **changes)
    with pytest.raises(InputError, match=code):
        choose(tokenizer, 5, 0, data)
