"""What can be wrong with a pretrained folder: kind, change, error code, words of the fact."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Break = Callable[[Path], None]


def edit(name: str, **changes: Any) -> Break:
    """Keys of one JSON file; `a__b` is b within a, and None takes a key away."""

    def change(path: Path) -> None:
        content = json.loads((path / name).read_text())
        for key, value in changes.items():
            *tables, last = key.split("__")
            table = content
            for inner in tables:
                table = table[inner]
            if value is None:
                del table[last]
            else:
                table[last] = value
        (path / name).write_text(json.dumps(content))

    return change


def remove(name: str) -> Break:
    return lambda path: (path / name).unlink()


def cut(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickle(path: Path) -> None:
    (path / "model.safetensors").unlink()
    torch.save({}, path / "pytorch_model.bin")


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Break:
    def rewrite(path: Path) -> None:
        found = load_file(path / "model.safetensors")
        change(found)
        save_file(found, path / "model.safetensors", metadata={"format": "pt"})

    return rewrite


CONFIG, WORDS, PICTURES = "config.json", "tokenizer_config.json", "preprocessor_config.json"
QUERY = "language_model.model.layers.0.self_attn.q_proj.weight"
LATER = "{{ messages[0]['content'][-1]['text'] }}<IMG_CONTEXT><IMG_CONTEXT>"
WRONG: dict[str, tuple[str, Break, str, str]] = {
    "another model": (
        "internvl",
        edit(CONFIG, model_type="bert"),
        "backbone-other-model",
        "'bert'",
    ),
    "eyes as a backbone": (
        "internvl",
        edit(CONFIG, model_type="siglip"),
        "backbone-other-model",
        "siglip",
    ),
    "no type": ("internvl", edit(CONFIG, model_type=None), "backbone-other-model", "None"),
    "a backbone as eyes": (
        "siglip",
        edit(CONFIG, model_type="internvl"),
        "backbone-other-model",
        "internvl",
    ),
    "no configuration": ("qwen", remove(CONFIG), "backbone-file-missing", CONFIG),
    "configuration is a list": (
        "qwen",
        lambda p: (p / CONFIG).write_text("[]") and None,
        "backbone-invalid",
        "no table",
    ),
    "configuration is cut": (
        "qwen",
        lambda p: (p / CONFIG).write_text("{") and None,
        "backbone-invalid",
        "JSON",
    ),
    "no tokenizer": ("internvl", remove("tokenizer.json"), "tokenizer-missing", "tokenizer.json"),
    "tokenizer is cut": (
        "qwen",
        lambda p: (p / "tokenizer.json").write_text("{") and None,
        "tokenizer-invalid",
        "tokenizer.json",
    ),
    "no processor": ("internvl", remove(PICTURES), "backbone-file-missing", PICTURES),
    "no weights": ("qwen", remove("model.safetensors"), "not-a-checkpoint", "model.safetensors"),
    "pickled weights": ("siglip", pickle, "not-a-checkpoint", "model.safetensors"),
    "weights are cut": ("internvl", cut, "checkpoint-unreadable", "safetensors"),
    "heads do not divide": (
        "internvl",
        edit(CONFIG, vision_config__num_attention_heads=5),
        "backbone-invalid",
        "multiple",
    ),
    "language heads do not divide": (
        "internvl",
        edit(CONFIG, text_config__num_key_value_heads=3),
        "backbone-invalid",
        "multiple",
    ),
    "width is a word": (
        "qwen",
        edit(CONFIG, text_config__hidden_size="wide"),
        "backbone-invalid",
        "hidden_size",
    ),
    "width of zero": ("dinov2", edit(CONFIG, hidden_size=0), "backbone-invalid", ""),
    "patches do not divide": (
        "internvl",
        edit(CONFIG, vision_config__image_size=[29, 29]),
        "backbone-invalid",
        "patch_size",
    ),
    "patches do not pair": (
        "internvl",
        edit(CONFIG, vision_config__image_size=[21, 21]),
        "backbone-invalid",
        "multiple of 2",
    ),
    "pictures are not square": (
        "internvl",
        edit(CONFIG, vision_config__image_size=[28, 42]),
        "backbone-unsupported",
        "image_size",
    ),
    "pictures of another size": (
        "internvl",
        edit(PICTURES, size={"height": 35, "width": 35}),
        "backbone-unsupported",
        "35",
    ),
    "pictures of another size for eyes": (
        "siglip",
        edit(PICTURES, size={"height": 28, "width": 28}),
        "backbone-unsupported",
        "28",
    ),
    "another activation": (
        "internvl",
        edit(CONFIG, text_config__hidden_act="relu"),
        "backbone-unsupported",
        "hidden_act",
    ),
    "another projector": (
        "internvl",
        edit(CONFIG, projector_hidden_act="relu"),
        "backbone-unsupported",
        "projector_hidden_act",
    ),
    "an inner layer's features": (
        "internvl",
        edit(CONFIG, vision_feature_layer=-2),
        "backbone-unsupported",
        "vision_feature_layer",
    ),
    "sliding windows": (
        "internvl",
        edit(
            CONFIG,
            text_config__use_sliding_window=True,
            text_config__sliding_window=4,
            text_config__max_window_layers=0,
        ),
        "backbone-unsupported",
        "sliding",
    ),
    "a stretched rope": (
        "internvl",
        edit(
            CONFIG,
            text_config__rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
        ),
        "backbone-unsupported",
        "rope_type",
    ),
    "another temporal patch": (
        "qwen",
        edit(CONFIG, vision_config__temporal_patch_size=4),
        "backbone-unsupported",
        "temporal_patch_size",
    ),
    "dropped layers": (
        "dinov2",
        edit(CONFIG, drop_path_rate=0.1),
        "backbone-unsupported",
        "drop_path_rate",
    ),
    "no normalisation": (
        "qwen",
        edit(PICTURES, do_normalize=False),
        "backbone-unsupported",
        "do_normalize",
    ),
    "another kernel": ("siglip", edit(PICTURES, resample=1), "backbone-unsupported", "resample"),
    "no mean": ("siglip", edit(PICTURES, image_mean=None), "backbone-unsupported", "image_mean"),
    "a spread of zero": (
        "siglip",
        edit(PICTURES, image_std=[0.0, 1.0, 1.0]),
        "backbone-invalid",
        "std",
    ),
    "no chat template": (
        "internvl",
        edit(WORDS, chat_template=None),
        "backbone-prompt",
        "no chat template",
    ),
    "a template without pictures": (
        "qwen",
        edit(WORDS, chat_template="{{ messages[0]['content'][-1]['text'] }}"),
        "backbone-prompt",
        "0 pictures of 2",
    ),
    "a template that fails": (
        "qwen",
        edit(WORDS, chat_template="{{ 1 + ''"),
        "backbone-prompt",
        "fails",
    ),
    "a template that refuses": (
        "qwen",
        edit(WORDS, chat_template="{{ raise_exception('no') }}"),
        "backbone-prompt",
        "fails",
    ),
    "pictures after the words": (
        "internvl",
        edit(WORDS, chat_template=LATER),
        "backbone-prompt",
        "instruction",
    ),
    "no padding": ("internvl", edit(WORDS, pad_token=None), "tokenizer-invalid", "fills up"),
    "no token for pictures": (
        "internvl",
        edit(CONFIG, image_token_id=9_999),
        "backbone-prompt",
        "9999",
    ),
    "a weight is missing": (
        "internvl",
        tensors(lambda found: found.pop(QUERY)),
        "backbone-weights",
        "q_proj",
    ),
    "a weight is narrower": (
        "internvl",
        tensors(lambda found: found.update({QUERY: torch.zeros(32, 16)})),
        "backbone-weights",
        "q_proj",
    ),
    "a weight is no number": (
        "internvl",
        tensors(lambda found: found[QUERY].fill_(torch.nan)),
        "backbone-weights",
        "finite",
    ),
    "a layer too few": (
        "qwen",
        edit(CONFIG, vision_config__depth=3),
        "backbone-weights",
        "blocks.2",
    ),
    "no positions": (
        "dinov2",
        tensors(lambda found: found.pop("embeddings.position_embeddings")),
        "backbone-weights",
        "position",
    ),
}
