"""Reads pi0 from a `pretrained_model` folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from libra_edge.policy.family import Loaded, ReadOptions
from libra_edge.policy.lerobot.decoder import Layer, gelu, own_names
from libra_edge.policy.lerobot.flow import FLOW_PARTS, Expert, FlowPolicy, euler_tables
from libra_edge.policy.lerobot.flow_folder import (
    FlowFolder,
    example_of,
    flow_contract,
    read_flow_folder,
    without_padding,
)
from libra_edge.policy.lerobot.folder import ACTION, STATE, Folder
from libra_edge.policy.lerobot.load import Tensors, fill, folder_sha256, read_weights, take
from libra_edge.policy.lerobot.normalize import Normalizer, denormalizing
from libra_edge.policy.lerobot.pictures import Padded, Pictures
from libra_edge.policy.lerobot.robot import fitted, without_empty
from libra_edge.policy.lerobot.siglip import Tower
from libra_edge.policy.lerobot.words import read_words
from libra_edge.policy.pi0.backbone import (
    EXPERT,
    PROJECTOR,
    TEXT,
    VISION,
    VLM,
    Backbone,
    backbone_of,
    check_vlm_config,
)
from libra_edge.policy.pi0.model import Prefix
from libra_edge.policy.tokenizer import Tokenizer

_NEWLINE = "pi0_new_line_processor"
# Of both models, what only words of their own are made with.
_UNUSED = (f"{VLM}lm_head.", f"{TEXT}norm.", "gemma_expert.lm_head.", f"{EXPERT}embed_tokens.")


class Pi0Family:
    """LeRobot's `pi0`."""

    name = "pi0"
    takes: tuple[str, ...] = ("tokenizer", "vlm_config")
    parts = FLOW_PARTS

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """By the type."""
        return config.get("type") == self.name

    def read(self, folder: Path, options: ReadOptions) -> Loaded:
        """See `libra_edge.policy.family.Family.read`."""
        read = read_flow_folder(folder, newline_step=_NEWLINE, steps_key="num_inference_steps")
        words = read_words(read.folder, options.tokenizer, newline_step=_NEWLINE)
        kept = without_empty(read.folder, options.robot, read.empty)
        robot = fitted(kept, options.robot)
        tensors = _named(read_weights(folder))
        models = take(tensors, "paligemma_with_expert.")
        backbone = backbone_of(read, models, words.vocabulary)
        if options.vlm_config is not None:
            check_vlm_config(read, backbone, options.vlm_config)
        offset_scale = denormalizing(
            read.folder.steps.unnormalization, ACTION, "ACTION", read.folder.action_dim
        )
        tables = euler_tables(tensors, read, offset_scale)
        prefix = _prefix(read, kept, backbone, words)
        expert = Expert(
            _layers(backbone, expert=True),
            width=backbone.expert.width,
            columns=read.columns,
            rows=read.rows,
            causal=False,
            eps=backbone.expert.eps,
        )
        _fill(read, backbone, prefix, expert, models, tensors)
        policy = FlowPolicy(
            prefix, expert, tables, example_of(read, robot, words.length), read.rows
        ).eval()
        contract = flow_contract(read, robot, self.name, words)
        sha256 = folder_sha256(folder, robot, words.text.encode())
        return Loaded(contract, policy, sha256, words, _notes(read))


def _named(tensors: Tensors) -> Tensors:
    """Names without the leading `model.`, and the embedding under the name it is used by.

    openpi's conversions name the embedding `lm_head` alone; where both are there, with different
    values, LeRobot uses the language model's own.
    """
    found = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    for end in ("in", "out"):
        for kind in ("weight", "bias"):
            if f"time_mlp_{end}.{kind}" in found:
                found[f"action_time_mlp_{end}.{kind}"] = found.pop(f"time_mlp_{end}.{kind}")
    embedding = f"paligemma_with_expert.{TEXT}embed_tokens.weight"
    head = found.get(f"paligemma_with_expert.{VLM}lm_head.weight")
    if embedding not in found and head is not None:
        found[embedding] = head
    return found


def _layers(backbone: Backbone, *, expert: bool) -> list[Layer]:
    sizes = backbone.expert if expert else backbone.layer
    return [Layer(sizes, gelu) for _ in range(backbone.layers)]


def _prefix(read: FlowFolder, kept: Folder, backbone: Backbone, words: Tokenizer) -> Prefix:
    target = read.folder.pair("image_resolution")
    tower = backbone.tower
    side = tower.side * tower.patch
    if target is None or target[0] != target[1] or target[0] // tower.patch != tower.side:
        raise read.folder.wrong(
            f"image_resolution is {target}; the eyes were trained on {side} x {side}"
        )
    sizes = [size for _, size in kept.cameras.values()]
    state = read.folder.steps.normalization
    return Prefix(
        Pictures(kept),
        [Padded(size, (target[0], target[0]), centred=True) for size in sizes],
        Normalizer(state, STATE, "STATE", read.folder.state_dim),
        Tower(tower, torch.arange(tower.places)),
        nn.Linear(tower.width, backbone.layer.width),
        nn.Embedding(backbone.vocabulary, backbone.layer.width),
        _layers(backbone, expert=False),
        _layers(backbone, expert=True),
        state_dim=read.folder.state_dim,
        rows=read.rows,
        pad=words.pad,
    )


def _fill(
    read: FlowFolder,
    backbone: Backbone,
    prefix: Prefix,
    expert: Expert,
    models: Tensors,
    rest: Tensors,
) -> None:
    """Every tensor to its place; `rest` are those outside the two models."""
    for unused in _UNUSED:
        take(models, unused)
    own: Tensors = {f"vision.{n}": t for n, t in take(models, VISION).items()}
    own |= {f"projector.{n}": t for n, t in take(models, PROJECTOR).items()}
    own |= _named_layers(take(models, TEXT), "language.")
    state = without_padding(take(rest, "state_proj."), read)
    own |= {f"state_proj.{n}": t for n, t in state.items()}
    beside = _named_layers(take(models, EXPERT), "layers.")
    own |= {
        name.replace("layers.", "of_state.", 1): tensor
        for name, tensor in beside.items()
        if name.startswith("layers.")
    }
    # The last layers give keys and values; what else they have makes words, or nothing.
    last = backbone.layers - 1
    for name in ("self_attn.q_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp"):
        for layers in ("language", "of_state"):
            take(own, f"{layers}.{last}.{name}.")
    fill(read.folder, prefix, own)
    fill(read.folder, expert, beside | models | rest)


def _named_layers(tensors: Tensors, prefix: str) -> Tensors:
    """A model's tensors by the names they have here; Gemma's norms multiply by weight + 1."""
    return {
        name.replace("layers.", prefix, 1): tensor + 1.0 if name.endswith("norm.weight") else tensor
        for name, tensor in own_names(tensors).items()
    }


def _notes(read: FlowFolder) -> tuple[str, ...]:
    if read.folder.config.get("dtype") != "bfloat16":
        return ()
    return (
        "config.json says bfloat16: LeRobot then rounds weights and activations, and its actions "
        "differ from a release's by that much; to compare, set dtype to float32 in a copy.",
    )


FAMILY = Pi0Family()
