from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from libra_edge.data import simulator as simulators
from libra_edge.data.collect import CollectConfig, collect, record_episode
from libra_edge.data.lerobot import Dataset
from libra_edge.errors import InputError
from libra_edge.workers.where import Workers
from tests.evaluation.fake_simulator import LineWorld


def _config(**changes) -> CollectConfig:
    fields = {"episodes": {"left": 4, "right": 4}, "noise_hold_steps": 2}
    return CollectConfig(**(fields | changes))


class Recorder(LineWorld):
    """Remembers the actions it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.executed: list[float] = []

    def step(self, action):
        self.executed.append(float(action[0]))
        return super().step(action)


def test_disturbed_episodes_execute_noise_but_record_the_expert():
    recorder = Recorder()
    config = _config(noisy_share=1.0, noise_std=0.2)
    episode = record_episode(recorder, config, "right", 0)
    assert np.all(episode.actions == 1.0)
    assert len(recorder.executed) == len(episode)
    assert min(recorder.executed) < 1.0
    assert max(np.abs(recorder.executed)) <= 1.0


def test_undisturbed_episodes_execute_what_they_record():
    recorder = Recorder()
    episode = record_episode(recorder, _config(noisy_share=0.0), "left", 1)
    assert recorder.executed == episode.actions[:, 0].tolist()


def test_share_of_disturbed_episodes():
    disturbed = 0
    for slot in range(60):
        recorder = Recorder()
        record_episode(recorder, _config(episodes={"right": 60}, noise_std=0.2), "right", slot)
        disturbed += min(recorder.executed) < 1.0
    assert 18 <= disturbed <= 42


def test_detour_comes_before_the_record():
    config = _config(noisy_share=0.0, detour_share=1.0, detour_steps=6, episodes={"right": 20})
    detours = []
    for slot in range(20):
        recorder = Recorder()
        episode = record_episode(recorder, config, "right", slot)
        assert recorder.executed[-len(episode) :] == episode.actions[:, 0].tolist()
        detours.append(recorder.executed[: -len(episode)])
    assert {len(detour) for detour in detours} == set(range(7))
    assert all(len(set(detour)) <= 1 for detour in detours)
    directions = [detour[0] for detour in detours if detour]
    assert min(directions) < 0 < max(directions)


def test_episode_goes_on_for_a_while_after_success():
    short = record_episode(LineWorld(), _config(noisy_share=0.0, steps_after_success=0), "left", 0)
    longer = record_episode(LineWorld(), _config(noisy_share=0.0, steps_after_success=3), "left", 0)
    assert len(longer) == len(short) + 3


def test_seeds_do_not_repeat_between_runs():
    seeds = {
        record_episode(LineWorld(), _config(seed=seed), "left", slot).seed
        for seed in (0, 1)
        for slot in range(4)
    }
    assert len(seeds) == 8


class Hopeless(LineWorld):
    def expert_action(self):
        return np.zeros(1, np.float32)


def test_expert_that_never_succeeds_is_named():
    with pytest.raises(InputError, match="expert-failed") as caught:
        record_episode(Hopeless(), _config(), "left", 0)
    assert "left" in caught.value.fact


class LineSplit(LineWorld):
    """As a registered simulator is opened."""

    def __init__(self, split: str) -> None:
        super().__init__()


@pytest.fixture
def line(monkeypatch):
    name = f"{LineSplit.__module__}:{LineSplit.__qualname__}"
    monkeypatch.setitem(simulators.SIMULATORS, "line", name)
    return "line"


def test_unknown_simulator_or_task(line, tmp_path):
    with pytest.raises(InputError, match="simulator-unknown"):
        collect("lien", _config(), tmp_path / "set")
    with pytest.raises(InputError, match="Did you mean 'left'"):
        collect(line, _config(episodes={"lef": 1}), tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"episodes": {}},
        {"episodes": {"left": 0}},
        {"noise_std": -1.0},
        {"noisy_share": 1.5},
        {"detour_share": -0.5},
        {"detour_steps": -1},
    ],
)
def test_senseless_settings(line, tmp_path, changes):
    with pytest.raises(InputError):
        collect(line, _config(**changes), tmp_path / "set")


def test_metaworld_dataset_does_not_depend_on_the_number_of_processes(tmp_path: Path):
    config = CollectConfig(episodes={"handle-press": 2}, noisy_share=1.0)
    try:
        for jobs in (1, 2):
            collect("metaworld", config, tmp_path / str(jobs), Workers(jobs))
    except InputError as error:
        if error.code in ("extra-missing", "renderer-missing"):
            pytest.skip(str(error))
        raise
    one, two = (Dataset(tmp_path / str(jobs)) for jobs in (1, 2))
    assert one.fingerprint == two.fingerprint
    assert [episode.task for episode in one.episodes] == ["handle-press"] * 2
    assert all(episode.success for episode in one.episodes)
    assert np.abs(one.episode(0).actions).max() <= 1.0
