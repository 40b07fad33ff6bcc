"""Our modules against what LeRobot answered, and folders that must not be read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from libra_edge.errors import InputError
from libra_edge.policy.family import Loaded, ReadOptions
from libra_edge.policy.imported import families, family_of, read_imported
from tests.policy.lerobot_cases import Case, case, changed, edit, edit_steps, edit_tensors, names

PRE, POST = "policy_preprocessor.json", "policy_postprocessor.json"
NORMALIZER, UNNORMALIZER = "*_normalizer_processor.safetensors", "*_unnormalizer_processor.*"


def loaded(found: Case, folder: Path | None = None) -> Any:
    family = family_of(folder or found.folder)
    assert family is not None
    return read_imported(family, folder or found.folder, ReadOptions(found.robot))


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


def drop(key: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.__delitem__(key)


def cut(key: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({key: tensors[key][:-1].clone()})


def poison(key: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({key: tensors[key] * float("nan")})


def normalizer(change: Callable[[dict[str, Any]], None]) -> Callable[[list[dict[str, Any]]], None]:
    def apply(steps: list[dict[str, Any]]) -> None:
        change(next(s for s in steps if s["registry_name"] == "normalizer_processor")["config"])

    return apply


def with_step(name: str) -> Callable[[list[dict[str, Any]]], None]:
    return lambda steps: steps.append({"registry_name": name})


WRONG: dict[str, tuple[str, Callable[[Path], None], str, str]] = {
    "a statistic of the state is missing": (
        "act",
        edit_tensors(NORMALIZER, drop("observation.state.std")),
        "lerobot-statistics-missing",
        "observation.state",
    ),
    "a statistic of the action is missing": (
        "diffusion-ddim",
        edit_tensors(UNNORMALIZER, drop("action.max")),
        "lerobot-statistics-missing",
        "action",
    ),
    "a statistic of a camera is missing": (
        "act",
        edit_tensors(NORMALIZER, drop("observation.images.wrist.mean")),
        "lerobot-statistics-missing",
        "observation.images.wrist",
    ),
    "a statistic has a dimension too few": (
        "act",
        edit_tensors(NORMALIZER, cut("observation.state.mean")),
        "lerobot-statistics-invalid",
        "observation.state",
    ),
    "a statistic is not a number": (
        "act",
        edit_tensors(NORMALIZER, poison("observation.state.mean")),
        "lerobot-statistics-invalid",
        "observation.state",
    ),
    "a way to normalise that nobody knows": (
        "act",
        edit_steps(PRE, normalizer(lambda c: c["norm_map"].update(STATE="LOG"))),
        "lerobot-normalization-unknown",
        "LOG",
    ),
    "a step that is not compiled": (
        "act",
        edit_steps(
            PRE, lambda steps: steps.append({"registry_name": "relative_actions_processor"})
        ),
        "lerobot-step-unsupported",
        "relative_actions_processor",
    ),
    "a step after the actions": (
        "act",
        edit_steps(
            POST, lambda steps: steps.append({"registry_name": "absolute_actions_processor"})
        ),
        "lerobot-step-unsupported",
        "absolute_actions_processor",
    ),
    "no normaliser": (
        "act",
        edit_steps(PRE, lambda steps: steps.pop()),
        "lerobot-folder-invalid",
        "normalizer_processor",
    ),
    "the file of statistics lies elsewhere": (
        "act",
        edit_steps(PRE, lambda steps: steps[-1].update(state_file="../stats.safetensors")),
        "lerobot-folder-invalid",
        "../stats.safetensors",
    ),
    "the file of statistics is gone": (
        "act",
        lambda folder: next(folder.glob(NORMALIZER)).unlink(),
        "lerobot-folder-invalid",
        "does not exist",
    ),
    "the preprocessor is gone": (
        "act",
        lambda folder: (folder / PRE).unlink(),
        "lerobot-folder-invalid",
        PRE,
    ),
    "temporal ensembling": (
        "act",
        edit("config.json", temporal_ensemble_coeff=0.01, n_action_steps=1),
        "temporal-ensembling",
        "null",
    ),
    "more heads than the width takes": (
        "act",
        edit("config.json", n_heads=7),
        "lerobot-folder-invalid",
        "n_heads",
    ),
    "a layer more than the weights": (
        "act",
        edit("config.json", n_encoder_layers=3),
        "checkpoint-tensors-differ",
        "encoder.layers.2",
    ),
    "a layer less than the weights": (
        "act",
        edit("config.json", n_encoder_layers=1),
        "checkpoint-tensors-differ",
        "encoder.layers.1",
    ),
    "another chunk than the weights": (
        "act",
        edit("config.json", chunk_size=13),
        "checkpoint-wrong-shape",
        "decoder_pos_embed",
    ),
    "a key of the configuration is missing": (
        "act",
        edit("config.json", dim_feedforward=...),
        "lerobot-folder-invalid",
        "dim_feedforward",
    ),
    "weights that are not finite": (
        "act",
        edit_tensors("model.safetensors", poison("model.action_head.weight")),
        "checkpoint-not-finite",
        "action_head",
    ),
    "a sampler that draws noise in each step": (
        "diffusion-ddim",
        edit("config.json", noise_scheduler_type="DDPM"),
        "sampler-unsupported",
        "DDIM",
    ),
    "a crop larger than the picture": (
        "diffusion-ddim",
        edit("config.json", crop_shape=[100, 80]),
        "lerobot-folder-invalid",
        "crop_shape",
    ),
    "more executed steps than the horizon has": (
        "diffusion-ddim",
        edit("config.json", n_action_steps=16),
        "lerobot-folder-invalid",
        "n_action_steps",
    ),
    "another UNet than the weights": (
        "diffusion-ddim",
        edit("config.json", down_dims=[32, 48]),
        "checkpoint-wrong-shape",
        "down_modules.1",
    ),
}


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
    assert {family.name for family in families()} == {"act", "diffusion"}
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
