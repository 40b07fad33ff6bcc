"""Our modules against what LeRobot answered, and folders that must not be read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from libra_edge.errors import InputError
from libra_edge.policy.family import Loaded, ReadOptions
from libra_edge.policy.imported import families, family_of, read_imported
from tests.policy.lerobot.wrong_folders import PRE, WRONG
from tests.policy.lerobot_cases import Case, case, changed, edit, edit_steps, names


def loaded(found: Case, folder: Path | None = None) -> Any:
    family = family_of(folder or found.folder)
    assert family is not None
    return read_imported(family, folder or found.folder, found.options)


def tensors(sample: Any) -> tuple[torch.Tensor, ...]:
    return tuple(
        torch.from_numpy(a) for a in (sample.images, sample.state, sample.instruction, sample.noise)
    )


@pytest.mark.parametrize("name", names())
def test_the_same_actions_as_lerobot(name: str) -> None:
    found = case(name)
    policy = loaded(found).policy
    for sample, wanted in zip(found.samples, found.actions, strict=True):
        actions = policy.refine(*tensors(sample)).numpy()
        assert (np.abs(actions - wanted) / found.span).max() < 5e-5


@pytest.mark.parametrize("name", names())
def test_the_same_samples_in_every_denoising_step(name: str) -> None:
    found = case(name)
    if found.path is None:
        assert not list(loaded(found).policy.refine_steps(*tensors(found.samples[0])))
        return
    for sample, path in zip(found.samples, found.path, strict=True):
        steps = [x.numpy() for x in loaded(found).policy.refine_steps(*tensors(sample))]
        assert len(steps) == len(path)
        for ours, theirs in zip(steps[:-1], path[1:], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("name", names())
def test_every_input_counts(name: str) -> None:
    found = case(name)
    policy, sample = loaded(found).policy, found.samples[1]
    images, state, words, noise = tensors(sample)
    right = policy.refine(images, state, words, noise)
    # A constant dimension divides by eps: only those that move are moved here.
    other = tensors(found.samples[2])
    assert (policy.refine(other[0], state, words, noise) - right).abs().max() > 1e-3
    assert (policy.refine(images, other[1], words, noise) - right).abs().max() > 1e-3
    if len(words):
        assert (policy.refine(images, state, other[2], noise) - right).abs().max() > 1e-3
    if len(noise):
        assert (policy.refine(images, state, words, other[3]) - right).abs().max() > 1e-3


def test_fewer_steps_are_executed_than_predicted(tmp_path: Path) -> None:
    found = case("act")
    folder = changed(found.folder, tmp_path / "act", edit("config.json", n_action_steps=5))
    contract = loaded(found, folder).config
    assert (contract.chunk, contract.rows) == (5, 12)


def test_renamed_features_have_the_datasets_names(tmp_path: Path) -> None:
    found = case("act")
    renames = {"observation.images.head": "observation.images.top"}
    change = edit_steps(PRE, lambda steps: steps[0]["config"].update(rename_map=renames))
    folder = changed(found.folder, tmp_path / "act", change)
    robot = found.robot.model_copy(update={"cameras": ("head", "wrist")})
    family = family_of(folder)
    assert family is not None
    read = read_imported(family, folder, ReadOptions(robot))
    assert read.config.embodiment.cameras == ("head", "wrist")
    wanted = found.actions[0]
    actions = read.policy.refine(*tensors(found.samples[0])).numpy()
    assert (np.abs(actions - wanted) / found.span).max() < 5e-5


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_folder_is_refused_by_name(tmp_path: Path, what: str) -> None:
    name, change, code, word = WRONG[what]
    found = case(name)
    folder = changed(found.folder, tmp_path / "folder", change)
    with pytest.raises(InputError) as caught:
        loaded(found, folder)
    assert caught.value.code == code
    assert word in f"{caught.value.fact} {caught.value.remedy}"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"cameras": ("top", "side")}, "side"),
        ({"camera_sizes": ((64, 96), (72, 80)), "image_width": 96}, "wrist"),
        ({"camera_sizes": None}, "camera_sizes"),
    ],
)
def test_another_robot_is_refused_by_name(change: dict[str, Any], word: str) -> None:
    found = case("act")
    robot = found.robot.model_copy(update=change)
    family = family_of(found.folder)
    assert family is not None
    with pytest.raises(InputError) as caught:
        read_imported(family, found.folder, ReadOptions(robot))
    assert caught.value.code == "robot-differs"
    assert word in f"{caught.value.fact} {caught.value.remedy}"


def test_a_dimension_too_many_and_no_robot_are_refused() -> None:
    found = case("act")
    family = family_of(found.folder)
    assert family is not None
    more = found.robot.model_copy(update={"state": (*found.robot.state, found.robot.state[0])})
    for robot, code in ((more, "robot-differs"), (None, "robot-missing")):
        with pytest.raises(InputError) as caught:
            read_imported(family, found.folder, ReadOptions(robot))
        assert caught.value.code == code


def test_the_order_of_cameras_is_the_policys() -> None:
    found = case("act")
    turned = found.robot.model_copy(
        update={"cameras": ("wrist", "top"), "camera_sizes": ((72, 88), (64, 96))}
    )
    family = family_of(found.folder)
    assert family is not None
    read = read_imported(family, found.folder, ReadOptions(turned))
    assert read.config.embodiment.cameras == ("top", "wrist")
    assert read.config.embodiment.camera_sizes == ((64, 96), (72, 88))


def test_families_are_found_by_their_folders() -> None:
    assert {family.name for family in families()} == {"act", "diffusion", "pi0", "smolvla"}
    for family in families():
        assert not family.recognises({"type": "libra_vla"})


def test_what_identifies_a_policy(tmp_path: Path) -> None:
    found = case("act")
    same = shutil.copytree(found.folder, tmp_path / "same")
    (same / "train_config.json").write_text("{}")
    first = loaded(found)
    assert loaded(found, same).sha256 == first.sha256
    other = changed(found.folder, tmp_path / "other", edit("config.json", n_action_steps=5))
    assert loaded(found, other).sha256 != first.sha256
    wider = found.robot.model_copy(update={"control_hz": 20.0})
    family = family_of(found.folder)
    assert family is not None
    assert read_imported(family, found.folder, ReadOptions(wider)).sha256 != first.sha256


def test_loaded_is_what_the_interface_says() -> None:
    found = case("act")
    family = family_of(found.folder)
    assert family is not None
    assert isinstance(family.read(found.folder, ReadOptions(found.robot)), Loaded)
