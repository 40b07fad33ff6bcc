"""Weights of a pretrained model into the part of a policy that was built for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from libra_edge.errors import InputError
from libra_edge.policy.libra_vla.pretrained.build import CLASSES
from libra_edge.policy.libra_vla.pretrained.config import EyesConfig, VisionLanguageConfig

_PATCHES = "visual.patch_embed"


def load_pretrained(part: nn.Module, config: VisionLanguageConfig | EyesConfig, path: Path) -> None:
    """Fill a backbone or eyes with a folder's weights, in float32.

    Args:
        part: whose `model` was built for `config`.
        config: what the folder holds.
        path: the folder; its files were looked at by `folder.py`.

    Raises:
        InputError: a weight is missing, of another shape, or not finite.
    """
    with _quiet():
        loaded, report = CLASSES[config.kind].from_pretrained(
            path,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    found = [_name(key) for key in (*report["missing_keys"], *report["mismatched_keys"])]
    if wrong := sorted(name for name in found if not _is_head(name)):
        raise InputError(
            "backbone-weights",
            f"{path}: {len(wrong)} weight(s) are missing or of another shape: "
            f"{', '.join(wrong[:3])}.",
            "Copy config.json and the weights from one model.",
        )
    tensors: dict[str, Tensor] = dict(loaded.state_dict())
    if config.kind == "qwen2_5_vl":
        # A still picture fills both time steps.
        tensors[f"{_PATCHES}.weight"] = tensors.pop(f"{_PATCHES}.proj.weight").sum(2)
    if isinstance(config, EyesConfig):
        tensors = _of_eyes(loaded, config, tensors)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(
                "backbone-weights",
                f"{path}: {name} holds values that are not finite.",
                "The file is damaged: copy it again.",
            )
    part.get_submodule("model").load_state_dict(tensors)


def _of_eyes(loaded: Any, config: EyesConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what looks at no patch; positions of DINOv2 at the size of the pictures."""
    kept = {name: tensor for name, tensor in tensors.items() if not _is_head(name)}
    if config.kind == "dinov2":
        with torch.no_grad():
            places = torch.empty(1, config.tokens + 1, config.hidden_size)
            side = config.image_size
            interpolated = loaded.embeddings.interpolate_pos_encoding(places, side, side)
        kept["embeddings.position_embeddings"] = interpolated.clone()
    return kept


def _is_head(name: str) -> bool:
    """Whether a weight of an encoder is for its pooled output, or for training it alone."""
    return name.startswith("head.") or name == "embeddings.mask_token"


def _name(key: Any) -> str:
    """Transformers names a weight of another shape together with both shapes."""
    return str(key[0] if isinstance(key, tuple) else key)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and its report of weights that are not used here."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
