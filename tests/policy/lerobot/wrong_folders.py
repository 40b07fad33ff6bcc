"""Folders that must not be read: the case, what is changed, the error's code and a word of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.policy.lerobot_cases import edit, edit_steps, edit_tensors

PRE, POST = "policy_preprocessor.json", "policy_postprocessor.json"
NORMALIZER, UNNORMALIZER = "*_normalizer_processor.safetensors", "*_unnormalizer_processor.*"


def drop(key: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.__delitem__(key)


def cut(key: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({key: tensors[key][:-1].clone()})


def poison(key: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({key: tensors[key] * float("nan")})


def normalizer(change: Callable[[dict[str, Any]], None]) -> Callable[[list[dict[str, Any]]], None]:
    def apply(steps: list[dict[str, Any]]) -> None:
        change(next(s for s in steps if s["registry_name"] == "normalizer_processor")["config"])

    return apply


def with_step(name: str) -> Callable[[list[dict[str, Any]]], None]:
    return lambda steps: steps.append({"registry_name": name})


def switched_on(name: str) -> Callable[[list[dict[str, Any]]], None]:
    def apply(steps: list[dict[str, Any]]) -> None:
        next(s for s in steps if s["registry_name"] == name)["config"]["enabled"] = True

    return apply


def tokenizer_step(**changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    def apply(steps: list[dict[str, Any]]) -> None:
        found = next(s for s in steps if s["registry_name"] == "tokenizer_processor")
        found["config"].update(changes)

    return apply


def drop_all(*starts: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def apply(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(starts)]:
            del tensors[name]

    return apply


ADAPTER = ("lerobot-switch-unsupported", "adapter")
WRONG: dict[str, tuple[str, Callable[[Path], None], str, str]] = {
    "a statistic of the state is missing": (
        "act",
        edit_tensors(NORMALIZER, drop("observation.state.std")),
        "lerobot-statistics-missing",
        "observation.state",
    ),
    "a statistic of the action is missing": (
        "diffusion-ddim",
        edit_tensors(UNNORMALIZER, drop("action.max")),
        "lerobot-statistics-missing",
        "action",
    ),
    "a statistic of a camera is missing": (
        "act",
        edit_tensors(NORMALIZER, drop("observation.images.wrist.mean")),
        "lerobot-statistics-missing",
        "observation.images.wrist",
    ),
    "a statistic has a dimension too few": (
        "act",
        edit_tensors(NORMALIZER, cut("observation.state.mean")),
        "lerobot-statistics-invalid",
        "observation.state",
    ),
    "a statistic is not a number": (
        "act",
        edit_tensors(NORMALIZER, poison("observation.state.mean")),
        "lerobot-statistics-invalid",
        "observation.state",
    ),
    "a way to normalise that nobody knows": (
        "act",
        edit_steps(PRE, normalizer(lambda c: c["norm_map"].update(STATE="LOG"))),
        "lerobot-normalization-unknown",
        "LOG",
    ),
    "a step that is not compiled": (
        "act",
        edit_steps(
            PRE, lambda steps: steps.append({"registry_name": "relative_actions_processor"})
        ),
        "lerobot-step-unsupported",
        "relative_actions_processor",
    ),
    "a step after the actions": (
        "act",
        edit_steps(
            POST, lambda steps: steps.append({"registry_name": "absolute_actions_processor"})
        ),
        "lerobot-step-unsupported",
        "absolute_actions_processor",
    ),
    "no normaliser": (
        "act",
        edit_steps(PRE, lambda steps: steps.pop()),
        "lerobot-folder-invalid",
        "normalizer_processor",
    ),
    "the file of statistics lies elsewhere": (
        "act",
        edit_steps(PRE, lambda steps: steps[-1].update(state_file="../stats.safetensors")),
        "lerobot-folder-invalid",
        "../stats.safetensors",
    ),
    "the file of statistics is gone": (
        "act",
        lambda folder: next(folder.glob(NORMALIZER)).unlink(),
        "lerobot-folder-invalid",
        "does not exist",
    ),
    "the preprocessor is gone": (
        "act",
        lambda folder: (folder / PRE).unlink(),
        "lerobot-folder-invalid",
        PRE,
    ),
    "temporal ensembling": (
        "act",
        edit("config.json", temporal_ensemble_coeff=0.01, n_action_steps=1),
        "temporal-ensembling",
        "null",
    ),
    "more heads than the width takes": (
        "act",
        edit("config.json", n_heads=7),
        "lerobot-folder-invalid",
        "n_heads",
    ),
    "a layer more than the weights": (
        "act",
        edit("config.json", n_encoder_layers=3),
        "checkpoint-tensors-differ",
        "encoder.layers.2",
    ),
    "a layer less than the weights": (
        "act",
        edit("config.json", n_encoder_layers=1),
        "checkpoint-tensors-differ",
        "encoder.layers.1",
    ),
    "another chunk than the weights": (
        "act",
        edit("config.json", chunk_size=13),
        "checkpoint-wrong-shape",
        "decoder_pos_embed",
    ),
    "a key of the configuration is missing": (
        "act",
        edit("config.json", dim_feedforward=...),
        "lerobot-folder-invalid",
        "dim_feedforward",
    ),
    "weights that are not finite": (
        "act",
        edit_tensors("model.safetensors", poison("model.action_head.weight")),
        "checkpoint-not-finite",
        "action_head",
    ),
    "a sampler that draws noise in each step": (
        "diffusion-ddim",
        edit("config.json", noise_scheduler_type="DDPM"),
        "sampler-unsupported",
        "DDIM",
    ),
    "a crop larger than the picture": (
        "diffusion-ddim",
        edit("config.json", crop_shape=[100, 80]),
        "lerobot-folder-invalid",
        "crop_shape",
    ),
    "more executed steps than the horizon has": (
        "diffusion-ddim",
        edit("config.json", n_action_steps=16),
        "lerobot-folder-invalid",
        "n_action_steps",
    ),
    "actions relative to the state": (
        "pi0",
        edit("config.json", use_relative_actions=True),
        "lerobot-switch-unsupported",
        "relative",
    ),
    "a step that makes actions relative is switched on": (
        "pi0",
        edit_steps(PRE, switched_on("relative_actions_processor")),
        "lerobot-switch-unsupported",
        "relative_actions_processor",
    ),
    "a step that makes actions absolute is switched on": (
        "pi0",
        edit_steps(POST, switched_on("absolute_actions_processor")),
        "lerobot-switch-unsupported",
        "absolute_actions_processor",
    ),
    "joints of Aloha": (
        "smolvla",
        edit("config.json", adapt_to_pi_aloha=True),
        "lerobot-switch-unsupported",
        "adapt_to_pi_aloha",
    ),
    "an adapter": ("smolvla", edit("config.json", use_peft=True), *ADAPTER),
    "real-time chunking": (
        "smolvla",
        edit("config.json", rtc_config={"enabled": True}),
        "lerobot-rtc",
        "blend",
    ),
    "no step that ends instructions": (
        "smolvla",
        edit_steps(PRE, lambda steps: steps.pop(2)),
        "lerobot-folder-invalid",
        "smolvla_new_line_processor",
    ),
    "instructions are filled up from the left": (
        "pi0",
        edit_steps(PRE, tokenizer_step(padding_side="left")),
        "lerobot-folder-invalid",
        "padding_side",
    ),
    "another length of instructions than the model's": (
        "pi0",
        edit_steps(PRE, tokenizer_step(max_length=12)),
        "lerobot-folder-invalid",
        "12",
    ),
    "more dimensions than a sample has": (
        "smolvla",
        edit("config.json", max_action_dim=5),
        "lerobot-folder-invalid",
        "max_action_dim",
    ),
    "another width of the state than the weights": (
        "smolvla",
        edit("config.json", max_state_dim=16),
        "lerobot-folder-invalid",
        "max_state_dim",
    ),
    "fewer layers than the weights": (
        "smolvla",
        edit("config.json", num_vlm_layers=2),
        "lerobot-folder-invalid",
        "num_vlm_layers",
    ),
    "an expert that looks elsewhere": (
        "smolvla",
        edit("config.json", self_attn_every_n_layers=3),
        "lerobot-folder-invalid",
        "self_attn_every_n_layers",
    ),
    "pictures that give no square of words": (
        "smolvla",
        edit("config.json", resize_imgs_with_padding=[64, 32]),
        "lerobot-folder-invalid",
        "square",
    ),
    "another resolution than the eyes'": (
        "pi0",
        edit("config.json", image_resolution=[84, 84]),
        "lerobot-folder-invalid",
        "56 x 56",
    ),
    "an expert's layer is gone": (
        "pi0",
        edit_tensors(
            "model.safetensors",
            drop_all("model.paligemma_with_expert.gemma_expert.model.layers.1."),
        ),
        "lerobot-folder-invalid",
        "layers",
    ),
    "the embedding is gone under both names": (
        "pi0",
        edit_tensors(
            "model.safetensors",
            drop_all(
                "model.paligemma_with_expert.paligemma.lm_head",
                "model.paligemma_with_expert.paligemma.model.language_model.embed",
            ),
        ),
        "lerobot-folder-invalid",
        "embeddings",
    ),
    "a tensor that nothing takes": (
        "smolvla",
        edit_tensors("model.safetensors", lambda t: t.update({"model.more": torch.zeros(1)})),
        "checkpoint-tensors-differ",
        "more",
    ),
    "another UNet than the weights": (
        "diffusion-ddim",
        edit("config.json", down_dims=[32, 48]),
        "checkpoint-wrong-shape",
        "down_modules.1",
    ),
}
