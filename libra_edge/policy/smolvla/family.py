"""Reads SmolVLA from a `pretrained_model` folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from libra_edge.errors import InputError
from libra_edge.policy.family import Loaded, ReadOptions
from libra_edge.policy.lerobot.decoder import Layer, own_names
from libra_edge.policy.lerobot.flow import FLOW_PARTS, Expert, FlowPolicy, euler_tables
from libra_edge.policy.lerobot.flow_folder import (
    FlowFolder,
    ModelConfig,
    example_of,
    flow_contract,
    read_flow_folder,
    read_vlm_config,
    without_padding,
)
from libra_edge.policy.lerobot.folder import ACTION, STATE, Folder
from libra_edge.policy.lerobot.load import Tensors, fill, folder_sha256, read_weights, take
from libra_edge.policy.lerobot.normalize import Normalizer, denormalizing
from libra_edge.policy.lerobot.pictures import Padded, Pictures
from libra_edge.policy.lerobot.robot import fitted, without_empty
from libra_edge.policy.lerobot.siglip import Tower
from libra_edge.policy.lerobot.words import read_words
from libra_edge.policy.smolvla.backbone import (
    CONNECTOR,
    EXPERT,
    TEXT,
    VISION,
    Backbone,
    backbone_of,
)
from libra_edge.policy.smolvla.model import Connector, Prefix, Reader, places_of
from libra_edge.policy.tokenizer import Tokenizer

_NEWLINE = "smolvla_new_line_processor"
# Of the language model, what only words of its own are made with.
_UNUSED = ("vlm.lm_head.", f"{TEXT}norm.")
_BEFORE, _AFTER = ("<fake_token_around_image>", "<global-img>"), ("<fake_token_around_image>",)


class SmolVlaFamily:
    """LeRobot's `smolvla`."""

    name = "smolvla"
    takes: tuple[str, ...] = ("tokenizer", "vlm_config")
    parts = FLOW_PARTS

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """By the type."""
        return config.get("type") == self.name

    def read(self, folder: Path, options: ReadOptions) -> Loaded:
        """See `libra_edge.policy.family.Family.read`."""
        read = read_flow_folder(folder, newline_step=_NEWLINE, steps_key="num_steps")
        if options.vlm_config is None:
            raise InputError(
                "vlm-config-missing",
                f"{folder} only names its vision-language model: "
                f"{read.folder.config.get('vlm_model_name')}.",
                "Fetch config.json of that model into a folder and name it: --vlm-config DIR.",
            )
        vlm_config = read_vlm_config(read, options.vlm_config, "smolvlm")
        words = read_words(
            read.folder,
            options.tokenizer,
            newline_step=_NEWLINE,
            pad=_pad(vlm_config),
        )
        kept = without_empty(read.folder, options.robot, read.empty)
        robot = fitted(kept, options.robot)
        tensors = {n.removeprefix("model."): t for n, t in read_weights(folder).items()}
        vlm = take(tensors, "vlm_with_expert.")
        backbone = backbone_of(read, vlm, vlm_config, options.vlm_config, words.vocabulary)
        offset_scale = denormalizing(
            read.folder.steps.unnormalization, ACTION, "ACTION", read.folder.action_dim
        )
        tables = euler_tables(tensors, read, offset_scale)
        prefix = _prefix(read, kept, backbone, words)
        expert = _expert(read, backbone)
        _fill(read, backbone, prefix, expert, vlm, tensors)
        example = example_of(read, robot, words.length)
        policy = FlowPolicy(prefix, expert, tables, example, read.rows).eval()
        contract = flow_contract(read, robot, self.name, words)
        told = json.dumps(vlm_config.body, sort_keys=True)
        sha256 = folder_sha256(folder, robot, words.text.encode(), told.encode())
        return Loaded(contract, policy, sha256, words)


def _pad(config: ModelConfig) -> int | None:
    """The padding word that a model's configuration names, at the top or for its language model."""
    told = [table.body.get("pad_token_id") for table in (config, config.part("text_config"))]
    return next(
        (i for i in told if isinstance(i, int) and not isinstance(i, bool) and i >= 0), None
    )


def _prefix(read: FlowFolder, kept: Folder, backbone: Backbone, words: Tokenizer) -> Prefix:
    framing, size = _framing(read, kept)
    tower, sides = backbone.tower, [side // backbone.tower.patch for side in size]
    if sides[0] != sides[1] or sides[0] % backbone.scale or not sides[0]:
        raise read.folder.wrong(
            f"pictures of {size[0]} x {size[1]} pixels give {sides[0]} x {sides[1]} patches, not a "
            f"square whose side is a multiple of {backbone.scale}"
        )
    state = read.folder.steps.normalization
    return Prefix(
        Pictures(kept),
        framing,
        Normalizer(state, STATE, "STATE", read.folder.state_dim),
        Tower(tower, places_of(sides[0], tower.side)),
        Connector(backbone.scale, tower.width, backbone.layer.width),
        nn.Embedding(backbone.vocabulary, backbone.layer.width),
        [Layer(backbone.layer, nn.functional.silu) for _ in range(backbone.layers)],
        {number: Reader(sizes, backbone.layer.width) for number, sizes in backbone.readers.items()},
        backbone.looked_at,
        state_dim=read.folder.state_dim,
        marks=_marks(read, words),
        empty=len(read.folder.cameras) - len(kept.cameras),
        rows=read.rows,
        pad=words.pad,
    )


def _framing(read: FlowFolder, kept: Folder) -> tuple[list[nn.Module], tuple[int, int]]:
    """What brings each camera to the size of the eyes, and that size."""
    target = read.folder.pair("resize_imgs_with_padding")
    sizes = [size for _, size in kept.cameras.values()]
    if target is None:
        if len(set(sizes)) > 1:
            raise read.folder.wrong("cameras differ in size, and resize_imgs_with_padding is null")
        return [nn.Identity() for _ in sizes], sizes[0]
    width, height = target
    return [Padded(size, (height, width), centred=False) for size in sizes], (height, width)


def _marks(read: FlowFolder, words: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Words around a picture."""
    if not read.folder.config.get("add_image_special_tokens"):
        return (), ()
    found = {mark: words.identifier(mark) for mark in {*_BEFORE, *_AFTER}}
    for mark, number in found.items():
        if number is None:
            raise InputError(
                "tokenizer-differs",
                f"{words.path} has no {mark}, and add_image_special_tokens is set.",
                "Use the tokenizer.json that the policy was trained with.",
            )
    before, after = (tuple(found[m] or 0 for m in marks) for marks in (_BEFORE, _AFTER))
    return before, after


def _expert(read: FlowFolder, backbone: Backbone) -> Expert:
    layers = [
        Layer(sizes, nn.functional.silu, reads=number not in backbone.readers)
        for number, sizes in zip(backbone.looked_at, backbone.expert, strict=True)
    ]
    return Expert(
        layers,
        width=backbone.expert[0].width,
        columns=read.columns,
        rows=read.rows,
        causal=True,
        eps=backbone.expert[0].eps,
    )


def _fill(
    read: FlowFolder,
    backbone: Backbone,
    prefix: Prefix,
    expert: Expert,
    vlm: Tensors,
    rest: Tensors,
) -> None:
    """Every tensor to its place; `rest` are those outside the language model and the expert."""
    for unused in _UNUSED:
        take(vlm, unused)
    own: Tensors = {f"vision.{n}": t for n, t in take(vlm, VISION).items()}
    own |= {f"connector.{n}": t for n, t in take(vlm, CONNECTOR).items()}
    own |= {n.replace("layers.", "language.", 1): t for n, t in own_names(take(vlm, TEXT)).items()}
    own |= {
        f"state_proj.{n}": t for n, t in without_padding(take(rest, "state_proj."), read).items()
    }
    beside = own_names(take(vlm, EXPERT))
    for at, number in enumerate(backbone.looked_at):
        if number in backbone.readers:
            made = take(beside, f"layers.{at}.self_attn.reading.")
            values = own[f"language.{number}.self_attn.reading.v_proj.weight"]
            again = made["v_proj.weight"].double() @ values.double()
            own[f"readers.{number}.k_proj.weight"] = made["k_proj.weight"]
            own[f"readers.{number}.v_proj.weight"] = again.float()
    # The last layer gives keys and values; what else it has makes words.
    last = backbone.layers - 1
    if last in backbone.readers:
        take(own, f"language.{last}.self_attn.reading.v_proj.")
    for name in ("self_attn.q_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp"):
        take(own, f"language.{last}.{name}.")
    fill(read.folder, prefix, own)
    fill(read.folder, expert, beside | vlm | rest)


FAMILY = SmolVlaFamily()
