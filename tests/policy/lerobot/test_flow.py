"""What flow-matching folders only name, may leave out or call by other names."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from libra_edge.errors import InputError
from libra_edge.policy.family import ReadOptions
from libra_edge.policy.imported import Imported, family_of, read_imported
from libra_edge.policy.tokenizer import Tokenizer
from tests.policy.lerobot_cases import (
    IMAGES,
    Case,
    case,
    changed,
    edit,
    edit_steps,
    edit_tensors,
)

FLOW = ("pi0", "smolvla")


def read(folder: Path, options: ReadOptions) -> Imported:
    family = family_of(folder)
    assert family is not None
    return read_imported(family, folder, options)


def answers(policy: Any, sample: Any) -> Any:
    tensors = (sample.images, sample.state, sample.instruction, sample.noise)
    return policy.refine(*(torch.from_numpy(a) for a in tensors)).numpy()


def right(found: Case, read_in: Imported) -> bool:
    return all(
        (np.abs(answers(read_in.policy, sample) - wanted) / found.span).max() < 5e-5
        for sample, wanted in zip(found.samples[:2], found.actions, strict=False)
    )


@pytest.mark.parametrize("name", FLOW)
def test_instructions_become_lerobots_tokens(name: str) -> None:
    """With and without a line break, in whole and cut."""
    found = case(name)
    tokenizer = read(found.folder, found.options).tokenizer
    assert tokenizer is not None
    known = np.load(found.folder.parent / "reference.npz")
    assert any(task.endswith("\n") for task in found.tasks)
    assert known["mask"].all(1).any(), "one instruction is cut"
    for n, task in enumerate(found.tasks):
        tokens = tokenizer.encode(task)
        np.testing.assert_array_equal(
            tokens[known["mask"][n]], known["tokens"][n][known["mask"][n]]
        )
        assert (tokens[~known["mask"][n]] == tokenizer.pad).all()


@pytest.mark.parametrize("name", FLOW)
def test_the_release_has_all_rules_in_one_file(name: str, tmp_path: Path) -> None:
    found = case(name)
    tokenizer = read(found.folder, found.options).tokenizer
    assert tokenizer is not None
    (tmp_path / "tokenizer.json").write_text(tokenizer.text)
    alone = Tokenizer(tmp_path / "tokenizer.json", tokenizer.length)
    for task in found.tasks:
        np.testing.assert_array_equal(alone.encode(task), tokenizer.encode(task))
    with pytest.raises(InputError, match="tokenizer-invalid"):
        Tokenizer(tmp_path / "tokenizer.json", tokenizer.length + 1)
    for text, code in (("", "unknown"), ("  \n", "unknown"), (f"a {MARKS[name]}", "special")):
        with pytest.raises(InputError, match=f"instruction-{code}"):
            alone.encode(text)


MARKS = {"pi0": "<pad>", "smolvla": "<|im_end|>"}


@pytest.mark.parametrize("name", FLOW)
def test_what_is_only_named_is_asked_for(name: str) -> None:
    found = case(name)
    with pytest.raises(InputError, match="tokenizer-missing"):
        read(found.folder, replace(found.options, tokenizer=None))
    if name == "smolvla":
        with pytest.raises(InputError, match="vlm-config-missing"):
            read(found.folder, replace(found.options, vlm_config=None))
    else:
        assert right(found, read(found.folder, replace(found.options, vlm_config=None)))


def test_a_padding_token_is_found_without_the_tokenizers_configuration(tmp_path: Path) -> None:
    for name in FLOW:
        found = case(name)
        alone = shutil.copy(found.words, tmp_path / f"{name}.json")
        tokenizer = read(found.folder, replace(found.options, tokenizer=Path(alone))).tokenizer
        assert tokenizer is not None
        assert tokenizer.pad == {"pi0": 0, "smolvla": 2}[name]


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    """The larger vocabulary for the smaller table of embeddings."""
    small, large = sorted((case(n) for n in FLOW), key=lambda c: vocabulary(c))
    with pytest.raises(InputError) as caught:
        read(small.folder, replace(small.options, tokenizer=large.words))
    assert caught.value.code in ("tokenizer-differs", "vlm-config-differs")


def vocabulary(found: Case) -> int:
    tokenizer = read(found.folder, found.options).tokenizer
    assert tokenizer is not None
    return tokenizer.vocabulary


@pytest.mark.parametrize(
    ("name", "part", "key", "value"),
    [
        ("smolvla", None, "model_type", "idefics3"),
        ("smolvla", None, "scale_factor", 2),
        ("smolvla", "text_config", "hidden_size", 96),
        ("smolvla", "text_config", "num_attention_heads", 8),
        ("smolvla", "text_config", "num_key_value_heads", 4),
        ("smolvla", "text_config", "head_dim", 32),
        ("smolvla", "text_config", "vocab_size", 353),
        ("smolvla", "text_config", "hidden_act", "gelu"),
        ("smolvla", "vision_config", "hidden_size", 64),
        ("smolvla", "vision_config", "patch_size", 16),
        ("smolvla", "vision_config", "image_size", 128),
        ("smolvla", "vision_config", "num_attention_heads", 5),
        ("pi0", None, "model_type", "smolvlm"),
        ("pi0", "text_config", "head_dim", 32),
        ("pi0", "text_config", "num_attention_heads", 4),
        ("pi0", "vision_config", "num_attention_heads", 8),
        ("pi0", "vision_config", "num_hidden_layers", 3),
    ],
)
def test_another_models_configuration_is_refused(
    tmp_path: Path, name: str, part: str | None, key: str, value: Any
) -> None:
    found = case(name)
    assert found.options.vlm_config is not None
    body = json.loads((found.options.vlm_config / "config.json").read_text())
    (body[part] if part else body)[key] = value
    (tmp_path / "config.json").write_text(json.dumps(body))
    with pytest.raises(InputError) as caught:
        read(found.folder, replace(found.options, vlm_config=tmp_path))
    assert caught.value.code == "vlm-config-differs"


def test_names_of_openpis_conversions(tmp_path: Path) -> None:
    """Without the leading part, and with the embedding as the head alone."""
    found = case("pi0")

    def strip(tensors: dict[str, torch.Tensor]) -> None:
        table = tensors.pop(EMBEDDING)
        tensors[EMBEDDING.replace("model.language_model.embed_tokens", "lm_head")] = table
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    folder = changed(found.folder, tmp_path / "pi0", edit_tensors("model.safetensors", strip))
    assert right(found, read(folder, found.options))


EMBEDDING = "model.paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"


def test_the_head_is_not_the_embedding_where_both_are_there(tmp_path: Path) -> None:
    found = case("pi0")
    head = EMBEDDING.replace("model.language_model.embed_tokens", "lm_head")
    other = edit_tensors("model.safetensors", lambda t: t.update({head: t[head] * 2 + 1}))
    assert right(found, read(changed(found.folder, tmp_path / "pi0", other), found.options))


@pytest.mark.parametrize("name", FLOW)
def test_an_empty_camera_changes_nothing(name: str, tmp_path: Path) -> None:
    """LeRobot masks what is not there; a camera beyond that number is a mistake."""
    found = case(name)
    config = json.loads((found.folder / "config.json").read_text())
    camera = {"type": "VISUAL", "shape": [3, 48, 64]}
    inputs = {**config["input_features"], f"{IMAGES}empty_camera_0": camera}
    change = edit("config.json", input_features=inputs, empty_cameras=1)
    folder = changed(found.folder, tmp_path / "one", change)
    assert right(found, read(folder, found.options))
    change = edit("config.json", input_features=inputs, empty_cameras=0)
    folder = changed(found.folder, tmp_path / "none", change)
    with pytest.raises(InputError, match="robot-differs"):
        read(folder, found.options)


def test_padding_to_the_longest_or_to_the_end_is_the_same(tmp_path: Path) -> None:
    found = case("smolvla")
    change = edit_steps(
        "policy_preprocessor.json",
        lambda steps: steps[3]["config"].update(padding="max_length"),
    )
    assert right(found, read(changed(found.folder, tmp_path / "padded", change), found.options))


def test_half_precision_is_noted(tmp_path: Path) -> None:
    found = case("pi0")
    folder = changed(found.folder, tmp_path / "half", edit("config.json", dtype="bfloat16"))
    assert "bfloat16" in " ".join(read(folder, found.options).notes)


def test_fewer_steps_are_executed_than_predicted(tmp_path: Path) -> None:
    found = case("smolvla")
    folder = changed(found.folder, tmp_path / "five", edit("config.json", n_action_steps=5))
    contract = read(folder, found.options).config
    assert (contract.chunk, contract.rows) == (5, 10)
    assert right(found, read(folder, found.options))
