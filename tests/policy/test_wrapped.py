"""Weights saved from inside a wrapper, links into a cache, and folders of other policies."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from libra_edge.errors import InputError, LibraWarning
from libra_edge.policy.checkpoint import checkpoint_sha256, load_checkpoint
from libra_edge.policy.config import read_config
from tests.tiny import write_tiny_checkpoint

Tensors = dict[str, torch.Tensor]
PREFIXES = ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module.", "ema.", "ema_model.",
            "averaged.module.", "model.policy."]  # fmt: skip


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("policy") / "checkpoint")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "checkpoint"))


def rename(folder: Path, change: Callable[[Tensors], Tensors]) -> Tensors:
    before = load_file(folder / "model.safetensors")
    save_file(change(dict(before)), folder / "model.safetensors")
    return before


def assert_loads(folder: Path, wanted: Tensors, said: str) -> None:
    with pytest.warns(LibraWarning, match="checkpoint-unwrapped") as caught:
        loaded = load_checkpoint(folder)
    assert said in str(caught[0].message)
    for name, tensor in loaded.policy.state_dict().items():
        assert torch.equal(tensor, wanted[name])


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_wrappers_prefix_is_taken_off_and_said(folder: Path, prefix: str) -> None:
    before = rename(folder, lambda t: {prefix + name: value for name, value in t.items()})
    assert_loads(folder, before, "_orig_mod." if "_orig_mod" in prefix else prefix)


def test_parts_that_were_compiled_on_their_own(folder: Path) -> None:
    before = rename(
        folder, lambda t: {n.replace("planner.", "planner._orig_mod."): v for n, v in t.items()}
    )
    assert_loads(folder, before, "_orig_mod.")


def test_a_moving_average_with_its_counter(folder: Path) -> None:
    """What AveragedModel's own state_dict holds."""
    before = rename(
        folder,
        lambda t: {"module." + n: v for n, v in t.items()} | {"n_averaged": torch.tensor(700)},
    )
    assert_loads(folder, before, "n_averaged")


def test_two_different_sets_are_not_chosen_between(folder: Path) -> None:
    rename(folder, lambda t: t | {"ema." + n: v + 1 for n, v in t.items()})
    with pytest.raises(InputError, match="checkpoint-ambiguous") as caught:
        load_checkpoint(folder)
    assert "'ema.'" in caught.value.fact
    assert "no prefix" in caught.value.fact


def test_two_equal_sets_are_one(folder: Path) -> None:
    before = rename(folder, lambda t: t | {"ema." + n: v.clone() for n, v in t.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = load_checkpoint(folder)
    assert all(torch.equal(v, before[n]) for n, v in loaded.policy.state_dict().items())


@pytest.mark.filterwarnings("ignore::libra_edge.errors.LibraWarning")
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(at=st.integers(0, 10_000), prefix=st.sampled_from(["", *PREFIXES]), lost=st.booleans())
def test_a_set_that_is_not_whole_is_refused(
    pristine: Path, tmp_path_factory: pytest.TempPathFactory, at: int, prefix: str, lost: bool
) -> None:
    """One tensor missing, or one too many, is an error under any prefix."""
    folder = Path(shutil.copytree(pristine, tmp_path_factory.mktemp("broken") / "checkpoint"))

    def change(tensors: Tensors) -> Tensors:
        wrapped = {prefix + name: value for name, value in tensors.items()}
        if lost:
            wrapped.pop(sorted(wrapped)[at % len(wrapped)])
        else:
            wrapped[prefix + "another.weight"] = torch.zeros(20)
        return wrapped

    rename(folder, change)
    with pytest.raises(InputError) as caught:
        load_checkpoint(folder)
    assert caught.value.code in ("checkpoint-missing-tensor", "checkpoint-extra-tensor")


def test_members_may_be_links_into_a_cache(folder: Path, tmp_path: Path) -> None:
    """As Hugging Face's cache holds them: names without endings, reached by links."""
    before, shas = load_checkpoint(folder), checkpoint_sha256(folder)
    linked = tmp_path / "snapshot"
    linked.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = tmp_path / f"blob{number}"
        shutil.copy(file, blob)
        (linked / file.name).symlink_to(Path("..") / blob.name)
    after = load_checkpoint(str(linked))
    for name, tensor in after.policy.state_dict().items():
        assert torch.equal(tensor, before.policy.state_dict()[name])
    assert checkpoint_sha256(linked) == shas
    (tmp_path / "blob0").unlink()
    with pytest.raises(InputError, match="checkpoint-link-broken") as caught:
        load_checkpoint(linked)
    assert "blob0" in caught.value.fact


@pytest.mark.parametrize("kind", ["act", "diffusion", "smolvla", "pi0", "something_new"])
def test_another_policy_is_named_for_what_it_is(tmp_path: Path, kind: str) -> None:
    config = {"type": kind, "input_features": {}, "normalization_mapping": {}, "n_obs_steps": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for read in (load_checkpoint, lambda path: read_config(path / "config.json")):
        with pytest.raises(InputError, match="checkpoint-other-policy") as caught:
            read(tmp_path)
        assert kind in caught.value.fact
        compiled = kind != "something_new"
        assert ("libra-edge compile" if compiled else "libra-edge train") in caught.value.remedy


def test_other_folders_of_a_training_are_named(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "last/pretrained_model")
    with pytest.raises(InputError, match="not-a-checkpoint") as caught:
        load_checkpoint(tmp_path / "last")
    assert str(tmp_path / "last/pretrained_model") in caught.value.remedy
    (tmp_path / "openvla").mkdir()
    (tmp_path / "openvla/config.json").write_text(json.dumps({"model_type": "openvla"}))
    with pytest.raises(InputError, match="checkpoint-other-policy") as caught:
        load_checkpoint(tmp_path / "openvla")
    assert "transformers" in caught.value.fact
