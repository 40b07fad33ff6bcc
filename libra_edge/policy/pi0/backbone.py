"""Sizes of PaliGemma and of the expert: widths from the tensors, heads as LeRobot has them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from libra_edge.errors import InputError
from libra_edge.policy.lerobot.decoder import LayerSizes, layer_sizes
from libra_edge.policy.lerobot.flow_folder import (
    FlowFolder,
    hold_against,
    read_vlm_config,
)
from libra_edge.policy.lerobot.load import Tensors, shapes_of, under
from libra_edge.policy.lerobot.siglip import TowerSizes, tower_sizes

VLM = "paligemma."
TEXT, VISION = f"{VLM}model.language_model.", f"{VLM}model.vision_tower.vision_model."
PROJECTOR, EXPERT = f"{VLM}model.multi_modal_projector.linear.", "gemma_expert.model."
# LeRobot writes them in code, for both variants and the eyes; so are the norms' epsilons.
_HEADS, _EYES_HEADS, _EPS = 8, 16, 1e-6


@dataclass(frozen=True)
class Backbone:
    """PaliGemma and the expert: `layers` of each, of one size each."""

    tower: TowerSizes
    layer: LayerSizes
    expert: LayerSizes
    layers: int
    vocabulary: int


def backbone_of(read: FlowFolder, tensors: Tensors, words: int) -> Backbone:
    """Sizes of a folder's weights.

    Args:
        read: the folder.
        tensors: of `paligemma_with_expert`.
        words: one more than the tokenizer's largest identifier.

    Raises:
        InputError: the weights are no pi0, or the tokenizer is of another model.
    """
    shapes = shapes_of(tensors)
    found = []
    for prefix in (TEXT, EXPERT):
        queries = shapes.get(f"{prefix}layers.0.self_attn.q_proj.weight", (0,))[0]
        head = queries // _HEADS
        sizes = (
            layer_sizes(shapes, f"{prefix}layers.0", heads=_HEADS, head=head, eps=_EPS)
            if head and not queries % _HEADS and not head % 2
            else None
        )
        if sizes is None:
            raise read.folder.wrong(f"its weights have no layers under {prefix} with 8 heads")
        found.append(sizes)
    layer, expert = found
    tower = tower_sizes(shapes_of(under(tensors, VISION)), heads=_EYES_HEADS, eps=_EPS)
    vocabulary = shapes.get(f"{TEXT}embed_tokens.weight", (0,))[0]
    if tower is None or not vocabulary or math.isqrt(tower.places) ** 2 != tower.places:
        raise read.folder.wrong("its weights hold no PaliGemma: eyes or embeddings are gone")
    counts = {
        len({n.removeprefix(p).split(".")[0] for n in shapes if n.startswith(p)})
        for p in (f"{TEXT}layers.", f"{EXPERT}layers.")
    }
    if len(counts) != 1 or layer.head != expert.head or layer.groups != expert.groups:
        raise read.folder.wrong("language model and expert differ in their layers or heads")
    if words > vocabulary:
        raise InputError(
            "tokenizer-differs",
            f"The tokenizer has {words} words, the weights in {read.folder.path} {vocabulary}.",
            "Name the tokenizer.json of PaliGemma.",
        )
    return Backbone(tower, layer, expert, counts.pop(), vocabulary)


def check_vlm_config(read: FlowFolder, backbone: Backbone, path: Path) -> None:
    """Hold PaliGemma's configuration, which is not needed, against the weights.

    Raises:
        InputError: it is of another model.
    """
    config = read_vlm_config(read, path, "paligemma")
    layer, tower = backbone.layer, backbone.tower
    text = {
        "hidden_size": layer.width,
        "intermediate_size": layer.feedforward,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": layer.groups,
        "head_dim": layer.head,
        "num_hidden_layers": backbone.layers,
    }
    eyes = {
        "hidden_size": tower.width,
        "intermediate_size": tower.feedforward,
        "num_attention_heads": _EYES_HEADS,
        "num_hidden_layers": tower.layers,
        "patch_size": tower.patch,
    }
    for key, found in (("text_config", text), ("vision_config", eyes)):
        told = {what: n for what, n in config.part(key).body.items() if what in found}
        hold_against(read, path, told, found)
