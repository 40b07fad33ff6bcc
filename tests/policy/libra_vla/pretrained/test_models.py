"""Backbones and eyes against transformers' own models, processors and chat templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from libra_edge.policy.libra_vla.pretrained.eyes import Eyes
from libra_edge.policy.libra_vla.pretrained.folder import read_backbone, read_eyes
from libra_edge.policy.libra_vla.pretrained.internvl import InternVl
from libra_edge.policy.libra_vla.pretrained.prompt import read_prompt, read_words
from libra_edge.policy.libra_vla.pretrained.qwen2_5_vl import QwenVl
from libra_edge.policy.libra_vla.pretrained.weights import load_pretrained
from libra_edge.policy.tokenizer import Tokenizer
from tests.pretrained_models import (
    INTERNVL,
    QWEN,
    write_dinov2,
    write_internvl,
    write_qwen,
    write_siglip,
)

CAMERAS, LENGTH = 2, 12
TOLD = ("open the faucet", "press the button now")


def prompted(
    path: Path, size: tuple[int, int], **changes: Any
) -> tuple[InternVl | QwenVl, Tokenizer]:
    """A folder as a backbone, and its tokenizer."""
    config = read_backbone(path, read_prompt(path, CAMERAS)).model_copy(update=changes)
    kind: Any = InternVl if config.kind == "internvl" else QwenVl
    backbone = kind(config, size, LENGTH, 3).eval()
    load_pretrained(backbone, config, path)
    return backbone, Tokenizer(path / "tokenizer.json", LENGTH, read_words(path, LENGTH))


def observed(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (len(TOLD), CAMERAS, *size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return images, torch.randn(len(TOLD), 3, generator=generator)


def prompt_ids(path: Path, template: str, told: str, pictures: str) -> list[int]:
    """What transformers makes of the same conversation; `pictures` is one picture's text."""
    words = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
    content = [{"type": "image"}] * CAMERAS + [{"type": "text", "text": told}]
    text = words.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=template,
        add_generation_prompt=True,
        tokenize=False,
    )
    for placeholder in ("<IMG_CONTEXT>", "<|image_pad|>"):
        text = text.replace(placeholder, pictures)
    found: list[int] = words(text)["input_ids"]
    return found


def compare(states: Tensor, bias: Tensor, wanted: Tensor) -> None:
    """Hidden states without the padding and without the state's own token, which comes last."""
    found = states[bias == 0]
    assert len(found) == len(wanted) + 1
    torch.testing.assert_close(found[:-1], wanted, atol=2e-5, rtol=1e-4)


def one(backbone: nn.Module, words: Tokenizer, i: int, images: Tensor, states: Tensor) -> Any:
    ids = torch.from_numpy(words.encode(TOLD[i]))[None]
    return backbone(images[i : i + 1], ids, states[i : i + 1])


def resized(resize: nn.Module, images: Tensor) -> list[Any]:
    """Pictures [V, h, w, 3] as the backbone resizes them: what processors make of them is in
    `test_resize.py`, but for a value in two hundred that is a grey level off."""
    found = resize(images.float().permute(0, 3, 1, 2))
    return list(found.flatten(0, -4).permute(0, 2, 3, 1).byte().numpy())


@pytest.mark.parametrize(("text", "tiles"), [("qwen2", 1), ("llama", 4), ("qwen3", 1)])
@torch.no_grad()
def test_internvl_is_transformers_own(tmp_path: Path, text: str, tiles: int) -> None:
    size = (24, 40)
    path = write_internvl(tmp_path, text)
    backbone, words = prompted(path, size, max_tiles=tiles)
    assert isinstance(backbone, InternVl)
    assert (backbone.tiles.count > 1) == (tiles > 1)
    model = transformers.InternVLModel.from_pretrained(path).eval()
    images, states = observed(size)
    processor = GotOcr2ImageProcessorPil.from_pretrained(path, crop_to_patches=False)
    for i, told in enumerate(TOLD):
        hidden = one(backbone, words, i, images, states)
        shown = "<img>" + "<IMG_CONTEXT>" * 4 * backbone.tiles.count + "</img>"
        ids = torch.tensor([prompt_ids(path, INTERNVL, told, shown)])
        tiled = resized(backbone.tiles, images[i])
        pixels = processor(images=tiled, do_resize=False, return_tensors="pt")["pixel_values"]
        wanted = model(input_ids=ids, pixel_values=pixels)
        compare(hidden.states[0], hidden.bias[0], wanted.last_hidden_state[0])


@pytest.mark.parametrize(
    ("size", "window", "alike"),
    [((28, 56), 28, True), ((24, 40), 28, False), ((42, 42), 14, True)],
)
@torch.no_grad()
def test_qwen_is_transformers_own(
    tmp_path: Path, size: tuple[int, int], window: int, alike: bool
) -> None:
    path = write_qwen(tmp_path, window_size=window)
    backbone, words = prompted(path, size)
    assert isinstance(backbone, QwenVl)
    assert (backbone.tower.length is not None) == alike
    model = transformers.Qwen2_5_VLModel.from_pretrained(path).eval()
    images, states = observed(size)
    processor = Qwen2VLImageProcessorPil.from_pretrained(path)
    for i, told in enumerate(TOLD):
        hidden = one(backbone, words, i, images, states)
        pictures = resized(backbone.resize, images[i])
        pixels = processor(images=pictures, do_resize=False, return_tensors="pt")
        grid = pixels["image_grid_thw"]
        shown = "<|image_pad|>" * (int(grid[0].prod()) // 4)
        ids = torch.tensor([prompt_ids(path, QWEN, told, shown)])
        wanted = model(
            input_ids=ids,
            pixel_values=pixels["pixel_values"],
            image_grid_thw=grid,
            mm_token_type_ids=(ids == model.config.image_token_id).int(),
        )
        compare(hidden.states[0], hidden.bias[0], wanted.last_hidden_state[0])


@torch.no_grad()
def test_a_backbone_reads_pictures_words_and_state(tmp_path: Path) -> None:
    backbone, words = prompted(write_internvl(tmp_path), (24, 40))
    images, states = observed((24, 40))
    ids = torch.from_numpy(np.stack([words.encode(told) for told in TOLD]))

    def last(images: Tensor, ids: Tensor, states: Tensor) -> Tensor:
        found: Tensor = backbone(images, ids, states).states[:, -1]
        return found

    before = last(images, ids, states)
    for changed in (
        last(255 - images, ids, states),
        last(images, ids.flip(0), states),
        last(images, ids, states + 1),
    ):
        assert (changed - before).abs().max() > 1e-3
    # What fills up is read by nothing: a longer T gives the same.
    config = read_backbone(tmp_path, read_prompt(tmp_path, CAMERAS))
    longer = InternVl(config, (24, 40), LENGTH + 5, 3).eval()  # type: ignore[arg-type]
    longer.load_state_dict(backbone.state_dict())
    padded = nn.functional.pad(ids, (0, 5), value=config.prompt.pad)
    torch.testing.assert_close(longer(images, padded, states).states[:, -1], before)


@torch.no_grad()
def test_siglip_is_transformers_own(tmp_path: Path) -> None:
    config = read_eyes(write_siglip(tmp_path))
    eyes = Eyes(config, CAMERAS, (24, 40), 16).eval()
    load_pretrained(eyes, config, tmp_path)
    pictures = torch.randn(3, 3, 21, 21)
    wanted = transformers.SiglipModel.from_pretrained(tmp_path).vision_model(pictures)
    torch.testing.assert_close(
        eyes.features(pictures), wanted.last_hidden_state, atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
def test_dinov2_is_transformers_own_at_another_size(tmp_path: Path) -> None:
    config = read_eyes(write_dinov2(tmp_path))
    assert (config.image_size, config.shortest_edge) == (21, 24)
    eyes = Eyes(config, CAMERAS, (24, 40), 16).eval()
    load_pretrained(eyes, config, tmp_path)
    pictures = torch.randn(3, 3, 21, 21)
    model = transformers.Dinov2Model.from_pretrained(tmp_path).eval()
    wanted = model(pictures).last_hidden_state[:, 1:]
    torch.testing.assert_close(eyes.features(pictures), wanted, atol=1e-5, rtol=1e-4)
    tokens = eyes(torch.zeros(2, CAMERAS, 24, 40, 3, dtype=torch.uint8))
    assert tokens.shape == (2, CAMERAS * config.tokens, 16)
