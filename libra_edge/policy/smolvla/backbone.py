"""Sizes of SmolVLM2 and of the expert: from the tensors, held against the model's own file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from libra_edge.policy.lerobot.decoder import LayerSizes, layer_sizes
from libra_edge.policy.lerobot.flow_folder import (
    FlowFolder,
    ModelConfig,
    hold_against,
    vlm_differs,
)
from libra_edge.policy.lerobot.load import Tensors, shapes_of, under
from libra_edge.policy.lerobot.siglip import TowerSizes, tower_sizes

TEXT, VISION = "vlm.model.text_model.", "vlm.model.vision_model."
EXPERT, CONNECTOR = "lm_expert.", "vlm.model.connector.modality_projection."


_GELU = "gelu_pytorch_tanh"


@dataclass(frozen=True)
class Backbone:
    """The vision-language model and the expert beside it.

    layers: of the language model, all of one size; scale: patches along the side of a word;
    expert: sizes of its layers; looked_at: for each of them, the number of the language model's
    layer that it stands beside; readers: of those that make keys and values anew, by that number.
    """

    tower: TowerSizes
    scale: int
    layer: LayerSizes
    layers: int
    vocabulary: int
    expert: tuple[LayerSizes, ...]
    looked_at: tuple[int, ...]
    readers: Mapping[int, LayerSizes]


def backbone_of(
    read: FlowFolder, tensors: Tensors, config: ModelConfig, file: Path, words: int
) -> Backbone:
    """Sizes of a folder's weights.

    Args:
        read: the folder.
        tensors: of `vlm_with_expert`.
        config: of the vision-language model.
        file: that configuration, for errors.
        words: one more than the tokenizer's largest identifier.

    Raises:
        InputError: configuration, tokenizer and weights are of different models.
    """
    text, vision = (config.part(f"{kind}_config") for kind in ("text", "vision"))
    shapes = shapes_of(tensors)
    heads = text.whole("num_attention_heads", 32)
    groups = text.whole("num_key_value_heads", heads)
    head = text.whole("head_dim", text.whole("hidden_size", 4096) // heads)
    eps = text.number("rms_norm_eps", 1e-6)

    def sizes(layer: str) -> LayerSizes | None:
        return layer_sizes(shapes, layer, heads=heads, head=head, eps=eps)

    layer = sizes(f"{TEXT}layers.0")
    tower = tower_sizes(
        shapes_of(under(tensors, VISION)),
        heads=vision.whole("num_attention_heads", 16),
        eps=vision.number("layer_norm_eps", 1e-6),
    )
    embedding = shapes.get(f"{TEXT}embed_tokens.weight", ())
    projection = shapes.get(f"{CONNECTOR}proj.weight", ())
    if layer is None or tower is None or (len(embedding), len(projection)) != (2, 2):
        raise read.folder.wrong("its weights hold no SmolVLM2: layers, embeddings or eyes are gone")
    scale = config.whole("scale_factor", 2)
    told = {
        "hidden_size": text.whole("hidden_size", 4096),
        "num_attention_heads and head_dim": heads * head,
        "num_key_value_heads and head_dim": groups * head,
        "vocab_size": text.whole("vocab_size", 32000),
        "hidden_act": text.text("hidden_act", "silu"),
        "hidden_size of the eyes": vision.whole("hidden_size", 1152),
        "patch_size": vision.whole("patch_size", 32),
        "image_size and patch_size": _places(vision),
        "hidden_act of the eyes": vision.text("hidden_act", _GELU),
        "scale_factor": tower.width * scale * scale,
    }
    rows = [_rows(shapes, f"{TEXT}layers.0", which) for which in "qk"]
    found = (
        *(layer.width, *rows, embedding[0], "silu"),
        *(tower.width, tower.patch, tower.places, _GELU, projection[1]),
    )
    hold_against(read, file, told, dict(zip(told, found, strict=True)))
    if heads % groups or tower.width % tower.heads or head % 2:
        raise vlm_differs(read, file, f"says {heads} heads in {groups} groups of {head}")
    if words > embedding[0]:
        raise vlm_differs(read, file, f"has {embedding[0]} words, the tokenizer {words}")
    count = _count(shapes, f"{TEXT}layers.")
    wanted = read.folder.whole("num_vlm_layers", -1)
    if 0 < wanted != count:
        raise read.folder.wrong(f"num_vlm_layers is {wanted}, the weights have {count}")
    beside = _count(shapes, f"{EXPERT}layers.")
    if not beside or count % beside:
        raise read.folder.wrong(f"the expert has {beside} layers, the language model {count}")
    looked_at = tuple(range(0, count, count // beside))
    expert = [sizes(f"{EXPERT}layers.{i}") for i in range(beside)]
    found_expert = tuple(one for one in expert if one is not None)
    if len(found_expert) != beside:
        raise read.folder.wrong("its weights hold no whole expert")
    readers = {
        number: one
        for number, one in zip(looked_at, found_expert, strict=True)
        if _across(read, number)
    }
    for number, one in zip(looked_at, found_expert, strict=True):
        wanted = groups * head if number in readers else one.width
        if one.read != wanted:
            raise read.folder.wrong(
                f"attention_mode and self_attn_every_n_layers make the expert's keys beside layer "
                f"{number} from {wanted} numbers, the weights from {one.read}"
            )
    return Backbone(tower, scale, layer, count, embedding[0], found_expert, looked_at, readers)


def _across(read: FlowFolder, number: int) -> bool:
    """Whether the expert's layer beside this one sees the language model alone."""
    every = read.folder.whole("self_attn_every_n_layers", 2)
    crosses = "cross" in str(read.folder.config.get("attention_mode", "cross_attn"))
    return crosses and not (every > 0 and number % every == 0)


def _places(vision: ModelConfig) -> int:
    side = vision.whole("image_size", 224) // vision.whole("patch_size", 32)
    return side * side


def _rows(shapes: Mapping[str, tuple[int, ...]], layer: str, which: str) -> int:
    return shapes[f"{layer}.self_attn.{which}_proj.weight"][0]


def _count(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    numbers = {
        name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)
    }
    return len(numbers)
