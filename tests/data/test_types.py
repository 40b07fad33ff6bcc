from __future__ import annotations

import numpy as np
import pytest

from libra_edge.data.types import Episode, Observation
from libra_edge.errors import InputError


def _episode(**changes):
    fields = {
        "images": np.zeros((3, 2, 4, 4, 3), np.uint8),
        "states": np.zeros((3, 5), np.float32),
        "actions": np.zeros((3, 2), np.float32),
        "instruction": "go",
        "task": "go",
        "success": True,
        "seed": 1,
    }
    return Episode(**(fields | changes))


def test_episode_hands_out_its_observations():
    episode = _episode(states=np.arange(15, dtype=np.float32).reshape(3, 5))
    assert len(episode) == 3
    observation = episode.observation(1)
    assert observation.state.tolist() == [5, 6, 7, 8, 9]
    assert observation.images.shape == (2, 4, 4, 3)
    assert observation.instruction == "go"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"images": np.zeros((3, 2, 4, 4, 3), np.float32)}, "array-mismatch"),
        ({"states": np.zeros((3, 5))}, "array-mismatch"),
        ({"actions": np.zeros((4, 2), np.float32)}, "episode-length"),
        ({"actions": np.full((3, 2), np.nan, np.float32)}, "not-finite"),
        ({"states": np.full((3, 5), np.inf, np.float32)}, "not-finite"),
    ],
)
def test_bad_arrays_are_refused(changes, code):
    with pytest.raises(InputError) as caught:
        _episode(**changes)
    assert caught.value.code == code
    assert caught.value.remedy


def test_empty_episode_is_refused():
    empty = {
        "images": np.zeros((0, 2, 4, 4, 3), np.uint8),
        "states": np.zeros((0, 5), np.float32),
        "actions": np.zeros((0, 2), np.float32),
    }
    with pytest.raises(InputError, match="episode-length"):
        _episode(**empty)


def test_observation_needs_rgb():
    with pytest.raises(InputError, match="RGB"):
        Observation(np.zeros((2, 4, 4, 1), np.uint8), np.zeros(5, np.float32), "go")
