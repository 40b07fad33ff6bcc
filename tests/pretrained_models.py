"""Tiny pretrained models with random weights, as transformers writes them to a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tests.tiny import INSTRUCTIONS

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"),
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
)
WIDTH, VOCABULARY = 32, 320
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": VOCABULARY,
    "bos_token_id": None,
    "eos_token_id": None,
}
MESSAGES = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}\
{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ IMAGE }}\
{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
INTERNVL = MESSAGES.replace("IMAGE", "'<IMG_CONTEXT>\\n'")
QWEN = "{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}" + MESSAGES.replace(
    "IMAGE", "'<|vision_start|><|image_pad|><|vision_end|>'"
)


def words() -> tokenizers.Tokenizer:
    """A byte-pair tokenizer like Qwen2's, of a few merges."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 4,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([*INSTRUCTIONS, "pick up the cup slowly"] * 4, trainer)
    return made


def write_words(path: Path, template: str) -> None:
    """Tokenizer, its settings and the chat template."""
    words().save(str(path / "tokenizer.json"))
    settings = {"pad_token": "<|endoftext|>", "chat_template": template}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))


def _save(model: Any, path: Path, seed: int = 0) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    path.mkdir(parents=True, exist_ok=True)
    log = transformers.utils.logging
    log.set_verbosity_error()
    log.disable_progress_bar()
    model.save_pretrained(path)


def write_internvl(path: Path, text: str = "qwen2", **changes: Any) -> Path:
    """An InternVL whose pictures are 28 pixels a side and one token each tile."""
    vision = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "image_size": [28, 28],
        "patch_size": [7, 7],
        "attention_bias": True,
    }
    config = transformers.InternVLConfig(
        text_config={"model_type": text, **TEXT},
        vision_config=vision | changes,
        image_token_id=SPECIAL.index("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    torch.manual_seed(0)
    _save(transformers.InternVLForConditionalGeneration(config), path)
    write_words(path, INTERNVL)
    size = {"height": 28, "width": 28}
    GotOcr2ImageProcessorPil(size=size, crop_to_patches=True).save_pretrained(path)
    return path


def write_qwen(path: Path, **changes: Any) -> Path:
    """A Qwen2.5-VL with windows of four patches, 7 pixels each."""
    vision = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_heads": 2,
        "depth": 2,
        "patch_size": 7,
        "window_size": 28,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [1],
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config={"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}, **TEXT},
        vision_config=vision | changes,
        image_token_id=SPECIAL.index("<|image_pad|>"),
        video_token_id=SPECIAL.index("<|video_pad|>"),
        vision_start_token_id=SPECIAL.index("<|vision_start|>"),
        vision_end_token_id=SPECIAL.index("<|vision_end|>"),
    )
    torch.manual_seed(0)
    _save(transformers.Qwen2_5_VLForConditionalGeneration(config), path)
    write_words(path, QWEN)
    size = {"shortest_edge": 14 * 14, "longest_edge": 42 * 56}
    Qwen2VLImageProcessorPil(patch_size=7, size=size).save_pretrained(path)
    return path


def write_siglip(path: Path) -> Path:
    """A SigLIP with both of its towers, as they are published."""
    vision = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "image_size": 21,
        "patch_size": 7,
    }
    text = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "vocab_size": 40,
    }
    config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    torch.manual_seed(0)
    _save(transformers.SiglipModel(config), path)
    SiglipImageProcessorPil(size={"height": 21, "width": 21}).save_pretrained(path)
    return path


def write_dinov2(path: Path) -> Path:
    """A DINOv2 that was trained on larger pictures than its processor makes."""
    config = transformers.Dinov2Config(
        hidden_size=24,
        num_attention_heads=2,
        num_hidden_layers=2,
        mlp_ratio=2,
        image_size=35,
        patch_size=7,
    )
    torch.manual_seed(0)
    _save(transformers.Dinov2Model(config), path)
    BitImageProcessorPil(
        size={"shortest_edge": 24}, crop_size={"height": 21, "width": 21}
    ).save_pretrained(path)
    return path
