"""transformers' own classes for a configuration, with weights as they are drawn.

What is written here besides the sizes is what these models have in common; `folder.py` refuses a
folder whose configuration says anything else.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import (
    Dinov2Config,
    Dinov2Model,
    InternVLConfig,
    InternVLModel,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from libra_edge.policy.libra_vla.pretrained.config import (
    EyesConfig,
    InternVlConfig,
    LanguageConfig,
    QwenVlConfig,
)

# Products that every engine has: no kernel of transformers' own choice.
_ATTENTION = "eager"
# Tokens of text generation, of which a planner has none; their defaults may lie outside of a small
# vocabulary.
_NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def language_config(language: LanguageConfig) -> dict[str, Any]:
    """The keys of transformers' configuration of a language model."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": language.rope_theta}
    keys = {*type(language).model_fields} - {"rope_theta", "mrope_section", "attention_bias"}
    result: dict[str, Any] = language.model_dump(include=keys) | _NO_TOKENS
    if language.mrope_section is not None:
        rope["mrope_section"] = list(language.mrope_section)
        del result["head_dim"]
    if language.model_type in ("llama", "qwen3"):
        result["attention_bias"] = language.attention_bias
    if language.model_type != "llama":
        result["use_sliding_window"] = False
    return result | {"rope_parameters": rope}


def intern_config(config: InternVlConfig) -> InternVLConfig:
    """Transformers' configuration of an InternVL."""
    vision = config.vision.model_dump()
    for side in ("image_size", "patch_size"):
        vision[side] = [vision[side]] * 2
    return InternVLConfig(
        vision_config=vision,
        text_config=language_config(config.language),
        downsample_ratio=1 / config.shuffle,
    )


def qwen_config(config: QwenVlConfig) -> Qwen2_5_VLConfig:
    """Transformers' configuration of a Qwen2.5-VL."""
    vision = config.vision.model_dump()
    vision["fullatt_block_indexes"] = list(vision["fullatt_block_indexes"])
    return Qwen2_5_VLConfig(
        vision_config=vision | {"out_hidden_size": config.language.hidden_size},
        text_config=language_config(config.language),
    )


def eyes_config(config: EyesConfig) -> SiglipVisionConfig | Dinov2Config:
    """Transformers' configuration of a picture encoder."""
    common = ("hidden_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    sizes = config.model_dump(include={*common, "layer_norm_eps", "hidden_act"})
    if config.kind == "siglip":
        width = config.intermediate_size
        return SiglipVisionConfig(**sizes, intermediate_size=width, vision_use_head=False)
    return Dinov2Config(
        **sizes,
        mlp_ratio=config.intermediate_size // config.hidden_size,
        use_swiglu_ffn=config.use_swiglu_ffn,
        use_mask_token=False,
    )


CLASSES: dict[str, Any] = {
    "internvl": InternVLModel,
    "qwen2_5_vl": Qwen2_5_VLModel,
    "siglip": SiglipVisionModel,
    "dinov2": Dinov2Model,
}


def build(config: InternVlConfig | QwenVlConfig | EyesConfig) -> nn.Module:
    """The model of a configuration."""
    if isinstance(config, InternVlConfig):
        own: PreTrainedConfig = intern_config(config)
    elif isinstance(config, QwenVlConfig):
        own = qwen_config(config)
    else:
        own = eyes_config(config)
    model: nn.Module = CLASSES[config.kind]._from_config(own, attn_implementation=_ATTENTION)
    return model
