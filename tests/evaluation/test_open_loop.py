from __future__ import annotations

import numpy as np
import pytest

from libra_edge.data.lerobot import Dataset
from libra_edge.data.lerobot_writer import DatasetWriter
from libra_edge.data.types import Episode, Observation
from libra_edge.errors import NotMeasuredError
from libra_edge.evaluation.open_loop import replay
from tests.evaluation.fake_simulator import LineWorld


class Proportional:
    """Acts as the recording did, plus a constant."""

    def __init__(self, offset: float) -> None:
        self.offset = offset
        self.told: list[str] = []

    def reset(self, seed: int, instruction: str) -> None:
        self.told.append(instruction)

    def act(self, observation: Observation) -> np.ndarray:
        return (0.5 * observation.state + self.offset).astype(np.float32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "set"
    body = LineWorld().embodiment().model_copy(update={"image_height": 16, "image_width": 16})
    with DatasetWriter(path, body, "lossless") as writer:
        for number in range(4):
            states = rng.uniform(-1, 1, (5, 1)).astype(np.float32)
            images = np.zeros((5, 1, 16, 16, 3), np.uint8)
            told = f"go {number}"
            writer.add(Episode(images, states, 0.5 * states, told, "go", True, number))
    return Dataset(path)


def test_the_recorded_policy_has_no_error(dataset):
    result = replay(dataset, Proportional(0.0))
    assert (result.episodes, result.frames) == (4, 20)
    assert result.mean_error == pytest.approx([0.0], abs=1e-6)
    assert result.relative_error == pytest.approx(0.0, abs=1e-6)


def test_error_is_measured_and_said(dataset):
    result = replay(dataset, Proportional(0.25))
    assert result.mean_error == pytest.approx([0.25], abs=1e-6)
    assert 0.5 < result.relative_error < 2.0
    assert "20 recorded observations" in result.in_words()
    assert "not whether the tasks succeed" in result.in_words()


def test_some_episodes_are_spread_over_the_dataset(dataset):
    controller = Proportional(0.0)
    assert replay(dataset, controller, episodes=2).frames == 10
    assert controller.told == ["go 0", "go 2"]


def test_nothing_to_replay_is_not_measured(dataset):
    with pytest.raises(NotMeasuredError):
        replay(dataset, Proportional(0.0), episodes=0)
