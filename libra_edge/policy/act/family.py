"""Reads ACT from a `pretrained_model` folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from libra_edge.catalog import PartName
from libra_edge.errors import InputError
from libra_edge.policy.act.model import ACTIVATIONS, Act, Network, Sizes
from libra_edge.policy.family import Contract, Loaded, ReadOptions
from libra_edge.policy.lerobot.folder import ACTION, STATE, Folder, read_folder
from libra_edge.policy.lerobot.load import (
    Tensors,
    build,
    folder_sha256,
    read_weights,
    shapes_of,
    under,
)
from libra_edge.policy.lerobot.normalize import Normalizer, denormalizing
from libra_edge.policy.lerobot.pictures import Pictures
from libra_edge.policy.lerobot.resnet import FrozenNorm, fold, resnet_like
from libra_edge.policy.lerobot.robot import fitted

# What training alone needs.
_TRAINING = ("vae_encoder",)


class ActFamily:
    """LeRobot's `act`."""

    name = "act"
    takes: tuple[str, ...] = ()
    parts: ClassVar[dict[str, PartName | None]] = {
        "network.backbone": "encoder",
        "network.encoder_img_feat_input_proj": "encoder",
        "network.encoder": "encoder",
        "network.decoder": "encoder",
        "network.encoder_robot_state_input_proj": "embeddings",
        # Of learned queries alone, and of a latent that is zero: evaluated while compiling.
        "network.decoder.layers.0.self_attn": None,
        "network.decoder.layers.0.multihead_attn.q_proj": None,
        "network.encoder_latent_input_proj": None,
        "network.action_head": "outputs",
    }

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """By the type."""
        return config.get("type") == self.name

    def read(self, folder: Path, options: ReadOptions) -> Loaded:
        """See `libra_edge.policy.family.Family.read`."""
        read = read_folder(folder)
        robot = fitted(read, options.robot)
        sizes, executed = _sizes(read)
        tensors = under(read_weights(folder), "model.")
        eyes = shapes_of(under(tensors, "backbone."))
        network = build(
            read,
            lambda: Network(sizes, resnet_like(eyes, FrozenNorm)),
            _split_attention(tensors),
            _TRAINING,
        )
        fold(network.backbone)
        steps, contract = (
            read.steps,
            Contract(robot, self.name, executed, sizes.chunk),
        )
        finish = denormalizing(steps.unnormalization, ACTION, "ACTION", sizes.action_dim)
        policy = Act(
            Pictures(read),
            Normalizer(steps.normalization, STATE, "STATE", sizes.state_dim),
            network,
            (torch.from_numpy(finish[0]), torch.from_numpy(finish[1])),
            (torch.zeros(robot.image_shape, dtype=torch.uint8), torch.zeros(sizes.state_dim)),
        ).eval()
        return Loaded(contract, policy, folder_sha256(folder, robot))


def _sizes(folder: Folder) -> tuple[Sizes, int]:
    """Of the network, and the steps that are executed."""
    if folder.config.get("temporal_ensemble_coeff") is not None:
        raise InputError(
            "temporal-ensembling",
            f"{folder.path}: temporal_ensemble_coeff is set: each action is then an average over "
            "all chunks, one of which is made in every control step.",
            "Set it to null; async mode blends successive chunks (le_run_options.blend).",
        )
    for key, wanted in (("n_obs_steps", 1), ("replace_final_stride_with_dilation", False)):
        if folder.config.get(key, wanted) != wanted:
            raise folder.wrong(f"{key} is {folder.config[key]!r}; {wanted!r} is compiled")
    activation = folder.get("feedforward_activation", str)
    if activation not in ACTIVATIONS:
        raise folder.wrong(f"feedforward_activation {activation!r} is not compiled")
    chunk, executed = folder.count("chunk_size"), folder.count("n_action_steps")
    width, heads = folder.count("dim_model"), folder.count("n_heads")
    if executed > chunk or width % heads or width % 4:
        raise folder.wrong(
            f"n_action_steps {executed} of chunk_size {chunk}, dim_model {width}, n_heads {heads}"
        )
    return Sizes(
        width,
        heads,
        folder.count("dim_feedforward"),
        folder.count("n_encoder_layers", 256),
        folder.count("n_decoder_layers", 256),
        folder.count("latent_dim"),
        chunk,
        folder.state_dim,
        folder.action_dim,
        activation,
        folder.get("pre_norm", bool),
    ), executed


def _split_attention(tensors: Tensors) -> Tensors:
    """LeRobot's three projections in one tensor, as three layers."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        place, _, last = name.rpartition(".in_proj_")
        if not place:
            found[name] = tensor
            continue
        for which, part in zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3), strict=True):
            found[f"{place}.{which}.{last}"] = part.clone()
    return found


FAMILY = ActFamily()
