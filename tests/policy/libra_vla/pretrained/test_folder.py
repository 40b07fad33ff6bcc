"""Folders that are no such model, not whole, or configured otherwise: refused by code and fact."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers

from libra_edge.errors import InputError
from libra_edge.policy.libra_vla.pretrained.eyes import Eyes
from libra_edge.policy.libra_vla.pretrained.folder import read_backbone, read_eyes
from libra_edge.policy.libra_vla.pretrained.internvl import InternVl
from libra_edge.policy.libra_vla.pretrained.prompt import read_prompt, read_words
from libra_edge.policy.libra_vla.pretrained.qwen2_5_vl import QwenVl
from libra_edge.policy.libra_vla.pretrained.weights import load_pretrained
from tests.policy.libra_vla.pretrained.wrong_folders import CONFIG, PICTURES, WRONG, edit
from tests.pretrained_models import write_dinov2, write_internvl, write_qwen, write_siglip

FOLDERS = {
    "internvl": write_internvl,
    "qwen": write_qwen,
    "siglip": write_siglip,
    "dinov2": write_dinov2,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: write(root / name) for name, write in FOLDERS.items()}


def use(path: Path, kind: str) -> None:
    """Everything that `train` does with a folder."""
    if kind in ("siglip", "dinov2"):
        eyes = read_eyes(path)
        load_pretrained(Eyes(eyes, 2, (24, 40), 16), eyes, path)
        return
    config = read_backbone(path, read_prompt(path, 2))
    read_words(path, 12)
    model: Any = InternVl if config.kind == "internvl" else QwenVl
    load_pretrained(model(config, (24, 40), 12, 3), config, path)


@pytest.mark.parametrize("kind", FOLDERS)
def test_whole_folders_are_taken(kind: str, whole: dict[str, Path]) -> None:
    use(whole[kind], kind)


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_folder_is_refused(case: str, whole: dict[str, Path], tmp_path: Path) -> None:
    kind, change, code, fact = WRONG[case]
    path = tmp_path / "model"
    shutil.copytree(whole[kind], path)
    change(path)
    with pytest.raises(InputError) as caught:
        use(path, kind)
    assert caught.value.code == code, caught.value
    assert fact in caught.value.fact
    assert caught.value.remedy


def test_the_original_form_of_internvl_is_named(whole: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(whole["internvl"], tmp_path / "model")
    edit(CONFIG, model_type="internvl_chat")(tmp_path / "model")
    with pytest.raises(InputError, match="internvl_chat") as caught:
        use(tmp_path / "model", "internvl")
    assert "-hf" in caught.value.remedy


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder") as caught:
        read_eyes(tmp_path / "nothing")
    assert caught.value.code == "backbone-file-missing"


def test_a_dynamic_rope_is_the_usual_one_for_short_prompts(
    whole: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "model"
    shutil.copytree(whole["internvl"], path)
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    edit(CONFIG, text_config__rope_parameters=rope)(path)
    usual, found = (read_backbone(p, read_prompt(p, 2)) for p in (whole["internvl"], path))
    assert usual == found


def test_older_configurations_are_read_alike(whole: dict[str, Path], tmp_path: Path) -> None:
    """Qwen2.5-VL's own files: the language model's keys at the top, no kernel, pixels by name."""
    path = tmp_path / "model"
    shutil.copytree(whole["qwen"], path)
    content = json.loads((path / CONFIG).read_text())
    text = content.pop("text_config")
    rope = text.pop("rope_parameters")
    flat = {key: value for key, value in text.items() if key != "model_type"}
    flat |= {"rope_theta": rope["rope_theta"]}
    flat |= {"rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}}
    (path / CONFIG).write_text(json.dumps(flat | content))
    bounds = {"min_pixels": 14 * 14, "max_pixels": 42 * 56}
    edit(PICTURES, resample=None, size=None, **bounds)(path)
    assert read_backbone(path, read_prompt(path, 2)) == read_backbone(
        whole["qwen"], read_prompt(whole["qwen"], 2)
    )


def test_weights_in_shards(tmp_path: Path) -> None:
    path = write_internvl(tmp_path / "model")
    model = transformers.InternVLForConditionalGeneration.from_pretrained(path)
    (path / "model.safetensors").unlink()
    model.save_pretrained(path, max_shard_size="40KB")
    shards = list(path.glob("model-*-of-*.safetensors"))
    assert len(shards) > 1
    use(path, "internvl")
    shards[0].unlink()
    with pytest.raises(InputError, match="checkpoint-shard-missing"):
        use(path, "internvl")
