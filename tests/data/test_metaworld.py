from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from libra_edge.data import metaworld
from libra_edge.data.metaworld import CAMERAS, INSTRUCTIONS, MetaWorld
from libra_edge.errors import InputError


@pytest.fixture(scope="module")
def simulators():
    opened = {split: MetaWorld(split) for split in ("train", "eval")}
    try:
        opened["train"].reset("faucet-open", 0)
    except InputError as error:
        if error.code in ("extra-missing", "renderer-missing"):
            pytest.skip(str(error))
        raise
    yield opened
    for simulator in opened.values():
        simulator.close()


def test_observation_matches_the_embodiment(simulators):
    body = simulators["train"].embodiment()
    observation = simulators["train"].reset("faucet-open", 0)
    assert body.cameras == CAMERAS
    size = (len(body.cameras), body.image_height, body.image_width, 3)
    assert observation.images.shape == size
    assert observation.state.shape == (len(body.state),)
    assert all(view.std() > 10 for view in observation.images)


def test_an_episode_depends_on_its_seed_alone(simulators):
    simulator = simulators["train"]

    def play(seed: int) -> tuple[np.ndarray, np.ndarray]:
        simulator.reset("faucet-close", seed)
        for _ in range(5):
            observation, _ = simulator.step(simulator.expert_action())
        return observation.images, observation.state

    first = play(3)
    play(4)
    simulator.reset("faucet-open", 3)
    again = play(3)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_training_and_held_out_scenes_differ(simulators):
    train, held_out = (simulators[split].reset("faucet-open", 5) for split in ("train", "eval"))
    other = simulators["train"].reset("faucet-open", 6)
    assert not np.array_equal(train.images, held_out.images)
    assert not np.array_equal(train.images, other.images)


def test_faucet_scenes_do_not_give_the_task_away(simulators):
    """Open and close start alike and from the same range of places: only the words differ."""
    scene = simulators["train"]
    places = {}
    first = scene.reset("faucet-open", 0).state
    for task in ("faucet-open", "faucet-close"):
        places[task] = []
        for seed in range(30):
            state = scene.reset(task, seed).state
            assert np.allclose(state, first, atol=1e-3)
            places[task].append(scene._scene._env.obj_init_pos[0])
    for found in places.values():
        assert -0.1 <= min(found) < -0.06
        assert 0.06 < max(found) <= 0.1
    assert not set(INSTRUCTIONS["faucet-open"]) & set(INSTRUCTIONS["faucet-close"])


def test_instructions_vary_and_can_be_overridden(simulators):
    simulator = simulators["train"]
    told = {simulator.reset("faucet-open", seed).instruction for seed in range(8)}
    assert told <= set(INSTRUCTIONS["faucet-open"])
    assert len(told) > 1
    assert simulator.reset("faucet-open", 0, "close the faucet").instruction == "close the faucet"


@pytest.mark.parametrize("task", INSTRUCTIONS)
def test_expert_succeeds_and_doing_nothing_does_not(simulators, task):
    simulator = simulators["eval"]
    for seed in (0, 1):
        simulator.reset(task, seed)
        assert any(simulator.step(simulator.expert_action())[1] for _ in range(120))
    simulator.reset(task, 0)
    assert not any(simulator.step(np.zeros(4, np.float32))[1] for _ in range(30))


def test_unknown_task(simulators):
    with pytest.raises(InputError, match="Did you mean 'faucet-open'"):
        simulators["train"].reset("faucet-opne", 0)


def test_missing_renderer_is_a_users_error_with_a_remedy(tmp_path):
    """A process that cannot find OSMesa, as on a machine without it."""
    script = (
        "import ctypes\n"
        "class Loader(ctypes.CDLL):\n"
        "    def __init__(self, name, *rest, **options):\n"
        "        if 'OSMesa' in str(name): raise OSError('no such library')\n"
        "        super().__init__(name, *rest, **options)\n"
        "ctypes.CDLL = ctypes.cdll._dlltype = Loader\n"
        "from libra_edge.data.metaworld import MetaWorld\n"
        "from libra_edge.errors import InputError\n"
        "try:\n"
        "    MetaWorld().reset('faucet-open', 0)\n"
        "except InputError as error:\n"
        "    print(error.code, '|', error.remedy)\n"
    )
    pytest.importorskip("metaworld")
    environment = os.environ | {"MUJOCO_GL": "osmesa"}
    environment.pop("PYOPENGL_PLATFORM", None)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("renderer-missing | ")
    assert "libosmesa6" in done.stdout


@pytest.mark.parametrize(
    ("installed", "picked"),
    [({"OSMesa", "EGL"}, "osmesa"), ({"EGL"}, "egl"), (set(), "osmesa")],
    ids=["both", "EGL alone", "neither"],
)
def test_renderer_is_one_that_is_installed(monkeypatch, installed, picked):
    found = {name: f"lib{name}.so" for name in installed}
    monkeypatch.setattr(metaworld, "find_library", found.get)
    assert metaworld._renderer() == picked
