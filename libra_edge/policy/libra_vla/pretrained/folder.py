"""Folders of pretrained models as transformers writes them: what they are, and whether they fit.

Everything that can be refused is refused here, before a weight is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from huggingface_hub.errors import StrictDataclassError
from pydantic import ValidationError
from transformers import Dinov2Config, InternVLConfig, Qwen2_5_VLConfig, SiglipVisionConfig

from libra_edge.errors import InputError
from libra_edge.policy.libra_vla.pretrained import build
from libra_edge.policy.libra_vla.pretrained.config import (
    EyesConfig,
    InternVlConfig,
    LanguageConfig,
    QwenVlConfig,
    VisionLanguageConfig,
)
from libra_edge.policy.weights import weight_files

CONFIG, PROCESSORS = "config.json", ("preprocessor_config.json", "processor_config.json")
_BACKBONES: dict[str, Any] = {"internvl": InternVLConfig, "qwen2_5_vl": Qwen2_5_VLConfig}
_EYES: dict[str, Any] = {
    "siglip": SiglipVisionConfig,
    "siglip_vision_model": SiglipVisionConfig,
    "dinov2": Dinov2Config,
}
_REMEDIES = {
    "internvl_chat": "Take the same model in transformers' own form, whose name ends in -hf.",
}
# Keys that say nothing about what the model computes from a picture and a prompt.
_WITHOUT_MEANING = frozenset(
    {
        *("transformers_version", "architectures", "dtype", "_name_or_path"),
        *("output_hidden_states", "output_attentions", "return_dict", "use_cache"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "image_token_id", "video_token_id"),
        *("vision_start_token_id", "vision_end_token_id", "image_seq_length"),
        *("id2label", "label2id", "problem_type", "is_encoder_decoder", "chunk_size_feed_forward"),
        *("initializer_range", "layer_scale_init_value", "layerscale_value", "pretraining_tp"),
        *("tie_word_embeddings", "max_position_embeddings", "max_window_layers", "sliding_window"),
        *("tokens_per_second", "use_mask_token", "vision_use_head", "model_type"),
        *("stage_names", "out_features", "out_indices", "apply_layernorm", "reshape_hidden_states"),
        # Looked at by `_language`.
        *("rope_parameters", "rope_scaling", "rope_theta"),
        # Positions are brought to the picture's size once.
        *("image_size",),
    }
)
_INTERN_VISION = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("attention_bias", "use_qk_norm", "norm_type", "layer_norm_eps", "use_mean_pooling"),
    "hidden_act",
)
_QWEN_VISION = (
    *("hidden_size", "intermediate_size", "depth", "num_heads", "patch_size"),
    *("spatial_merge_size", "window_size", "fullatt_block_indexes"),
)
_LANGUAGE = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "model_type"),
    *("num_attention_heads", "num_key_value_heads", "rms_norm_eps"),
)
_BICUBIC = 3
_RESAMPLES = {2: "bilinear", _BICUBIC: "bicubic"}


def read_json(path: Path) -> dict[str, Any]:
    """One file of a folder.

    Raises:
        InputError: it is missing, or holds no table.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            "backbone-file-missing",
            f"{path.parent} has no {path.name}.",
            "Name a folder that holds the whole model, as transformers' save_pretrained writes it.",
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            "backbone-invalid", f"{path} is not JSON: {error}.", "Copy the folder again."
        ) from None
    if not isinstance(found, dict):
        raise InputError("backbone-invalid", f"{path} holds no table.", "Copy the folder again.")
    return found


def read_backbone(path: Path, prompt: Mapping[str, Any]) -> VisionLanguageConfig:
    """The vision-language model of a folder, without its weights.

    Args:
        path: the folder.
        prompt: what `PromptConfig` holds.

    Raises:
        InputError: it is another model, not whole, or configured in a way that is not written here.
    """
    kind, given = _model(path, _BACKBONES)
    pictures, processor = _pictures(path)
    language = _language(path, given.text_config, longest=4_096)
    common = {"pictures": pictures, "language": language, "prompt": prompt}
    vision = given.vision_config
    if kind == "internvl":
        sizes = {name: getattr(vision, name) for name in _INTERN_VISION}
        for name in ("image_size", "patch_size"):
            sizes[name] = _square(path, name, getattr(vision, name))
        common |= {"vision": sizes, "shuffle": round(1 / given.downsample_ratio)}
        intern: InternVlConfig = _valid(path, InternVlConfig, common)
        _require_square_size(path, processor, sizes["image_size"])
        _require_alike(path, build.intern_config(intern).to_dict(), given.to_dict())
        return intern
    sizes = {name: getattr(vision, name) for name in _QWEN_VISION}
    own = processor.get("size")
    size = own if isinstance(own, dict) else {}
    fewest = processor.get("min_pixels", size.get("shortest_edge", 56 * 56))
    most = processor.get("max_pixels", size.get("longest_edge", 28 * 28 * 1280))
    common |= {"vision": sizes, "min_pixels": fewest, "max_pixels": most}
    config: QwenVlConfig = _valid(path, QwenVlConfig, common)
    _require_alike(path, build.qwen_config(config).to_dict(), given.to_dict())
    return config


def read_eyes(path: Path) -> EyesConfig:
    """The picture encoder of a folder, without its weights.

    Raises:
        InputError: see `read_backbone`.
    """
    model_type, given = _model(path, _EYES)
    pictures, processor = _pictures(path)
    siglip = model_type != "dinov2"
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps")
    keys: dict[str, Any] = {name: getattr(given, name) for name in (*names, "hidden_act")}
    if siglip:
        keys["intermediate_size"] = given.intermediate_size
    else:
        keys["intermediate_size"] = round(given.mlp_ratio * given.hidden_size)
        keys["use_swiglu_ffn"] = given.use_swiglu_ffn
    for name in ("image_size", "patch_size"):
        keys[name] = _square(path, name, getattr(given, name))
    edge = None
    if processor.get("do_center_crop"):
        cut = processor.get("crop_size")
        cut = [cut.get("height"), cut.get("width")] if isinstance(cut, dict) else cut
        keys["image_size"] = _square(path, "crop_size", cut)
        size = processor.get("size")
        edge = size.get("shortest_edge") if isinstance(size, dict) else size
        if not isinstance(edge, int):
            raise _unsupported(path, "size", size)
    elif siglip:
        _require_square_size(path, processor, keys["image_size"])
    else:
        size = processor.get("size")
        sides = [size.get("height"), size.get("width")] if isinstance(size, dict) else size
        keys["image_size"] = _square(path, "size", sides)
    kind = "siglip" if siglip else "dinov2"
    common = {"kind": kind, "pictures": pictures, "shortest_edge": edge}
    config: EyesConfig = _valid(path, EyesConfig, common | keys)
    _require_alike(path, build.eyes_config(config).to_dict(), given.to_dict())
    return config


def _model(path: Path, known: Mapping[str, Any]) -> tuple[str, Any]:
    """The type of a folder's model, and its configuration as transformers reads it."""
    if not path.is_dir():
        raise InputError(
            "backbone-file-missing", f"{path} is not a folder.", "Name the folder of a model."
        )
    content = read_json(path / CONFIG)
    kind = str(content.get("model_type"))
    if kind not in known:
        raise InputError(
            "backbone-other-model",
            f"{path} holds a model of the type {kind!r}.",
            _REMEDIES.get(kind, f"Name a folder of the type {' or '.join(sorted(known))}."),
        )
    for file in weight_files(path):
        try:
            with safetensors.safe_open(file, framework="pt") as reader:
                reader.keys()
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(
                "checkpoint-unreadable",
                f"{file} is not a whole safetensors file: {error}.",
                "Copy it again; compare its size and SHA-256 with where it came from.",
            ) from None
    if kind == "siglip":
        content = content.get("vision_config") or {}
    try:
        return kind, known[kind].from_dict(content)
    except (StrictDataclassError, TypeError, ValueError, KeyError, AttributeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            "backbone-invalid",
            f"transformers does not take {path / CONFIG}: {first.rstrip('.')}.",
            "Copy the folder again.",
        ) from None


def _language(path: Path, given: Any, longest: int) -> LanguageConfig:
    """The language model's sizes.

    A dynamic rope is the usual one up to the length that the model was trained with.
    """
    rope = dict(getattr(given, "rope_parameters", None) or {})
    kind = rope.get("rope_type", "default")
    short = kind == "dynamic" and given.max_position_embeddings >= longest
    if kind not in ("default", "mrope") and not short:
        raise _unsupported(path, "rope_type", kind)
    keys = {name: getattr(given, name, None) for name in _LANGUAGE}
    width = getattr(given, "head_dim", None)
    keys["head_dim"] = width or given.hidden_size // max(given.num_attention_heads, 1)
    keys["rope_theta"] = rope.get("rope_theta")
    keys["attention_bias"] = getattr(given, "attention_bias", False)
    keys["mrope_section"] = rope.get("mrope_section")
    found: LanguageConfig = _valid(path, LanguageConfig, keys)
    return found


def _pictures(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the folder's image processor treats pictures, and all that it says."""
    here = [name for name in PROCESSORS if (path / name).is_file()]
    content = read_json(path / (here or PROCESSORS)[0])
    inner = content.get("image_processor")
    content = inner if isinstance(inner, dict) else content
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if not content.get(step, True):
            raise _unsupported(path, step, content[step])
    if content.get("do_pad"):
        raise _unsupported(path, "do_pad", content["do_pad"])
    factor = content.get("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or abs(factor * 255 - 1) > 1e-6:
        raise _unsupported(path, "rescale_factor", factor)
    # Bicubic is the default of all these models' processors, and Qwen's files leave it out.
    resample = content.get("resample", _BICUBIC)
    if resample not in _RESAMPLES:
        raise _unsupported(path, "resample", resample)
    for name in ("image_mean", "image_std"):
        if name not in content:
            raise _unsupported(path, name, None)
    pictures = {
        "resample": _RESAMPLES[resample],
        "mean": content["image_mean"],
        "std": content["image_std"],
    }
    return pictures, content


def _require_square_size(path: Path, processor: Mapping[str, Any], side: int) -> None:
    size = processor.get("size")
    sides = [size.get("height"), size.get("width")] if isinstance(size, dict) else [size, size]
    if sides != [side, side]:
        raise InputError(
            "backbone-unsupported",
            f"{path}: the image processor makes pictures of size {size!r}, and the model takes "
            f"{side} x {side}.",
            "Copy config.json and preprocessor_config.json from one model.",
        )


def _square(path: Path, name: str, given: Any) -> int:
    sides = list(given) if isinstance(given, list | tuple) else [given, given]
    if len(sides) != 2 or sides[0] != sides[1] or not isinstance(sides[0], int):
        raise _unsupported(path, name, given)
    side: int = sides[0]
    return side


def _valid(path: Path, model: Any, keys: Mapping[str, Any]) -> Any:
    try:
        return model.model_validate(dict(keys))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            "backbone-invalid",
            f"{path}: {where + ': ' if where else ''}{first['msg']}.",
            "Name a folder of a model with other sizes, or copy it again.",
        ) from None


def _require_alike(path: Path, own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse what the model does besides what is written here.

    Raises:
        InputError: a key of the folder's has another value.
    """
    for key, value in own.items():
        if key in _WITHOUT_MEANING or key not in given:
            continue
        other = given[key]
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            _require_alike(path, value, other)
        elif _plain(value) != _plain(other):
            raise _unsupported(path, key, other)


def _plain(value: Any) -> Any:
    """Without the difference between lists and tuples, numbers and their kinds."""
    return json.loads(json.dumps(value, default=str))


def _unsupported(path: Path, key: str, value: Any) -> InputError:
    return InputError(
        "backbone-unsupported",
        f"{path}: {key} is {value!r}, which has no counterpart here.",
        "Take a model without it.",
    )
