"""What folders of flow-matching policies with a language model say, and need to be told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from libra_edge.errors import InputError
from libra_edge.policy.config import Embodiment
from libra_edge.policy.family import Contract
from libra_edge.policy.lerobot.folder import Folder, read_folder
from libra_edge.policy.lerobot.load import Tensors
from libra_edge.policy.lerobot.words import TOKENIZER_STEP
from libra_edge.policy.tokenizer import Tokenizer

_RELATIVE, _ABSOLUTE = "relative_actions_processor", "absolute_actions_processor"
# Switches of LeRobot that change what is computed and are not compiled, by what they mean.
_SWITCHES = {
    "adapt_to_pi_aloha": "joints are converted for Aloha",
    "use_delta_joint_actions_aloha": "actions are relative to the state",
    "use_relative_actions": "actions are relative to the state",
    "use_peft": "the weights are an adapter to other weights",
}


@dataclass(frozen=True)
class FlowFolder:
    """A folder, read.

    rows, executed: H that are predicted and that are executed; columns: of a sample; state_columns:
    to which the state is filled up; steps: K; periods: of the time's embedding; empty: cameras that
    LeRobot fills in where they are missing.
    """

    folder: Folder
    rows: int
    executed: int
    columns: int
    state_columns: int
    steps: int
    periods: tuple[float, float]
    empty: int


def read_flow_folder(path: Path, *, newline_step: str, steps_key: str) -> FlowFolder:
    """Read everything but weights and words.

    Args:
        path: the folder.
        newline_step: see `libra_edge.policy.lerobot.words.read_words`.
        steps_key: what the family calls K.

    Raises:
        InputError: something is missing, or switched on that is not compiled.
    """
    folder = read_folder(path, known=(TOKENIZER_STEP, newline_step, _RELATIVE, _ABSOLUTE))
    for steps in (folder.steps.before, folder.steps.after):
        for name in (_RELATIVE, _ABSOLUTE):
            if steps.get(name, {}).get("enabled"):
                raise _switched(path, f"its step {name} is switched on", "use_relative_actions")
    for key in _SWITCHES:
        if folder.config.get(key):
            raise _switched(path, f"{key} is set in config.json", key)
    real_time = folder.config.get("rtc_config") or {}
    if not isinstance(real_time, Mapping):
        raise folder.wrong(f"rtc_config is {real_time!r}")
    if real_time.get("enabled"):
        raise InputError(
            "lerobot-rtc",
            f"{path}: rtc_config is switched on: LeRobot then guides each chunk by the last one.",
            "Switch it off; async mode freezes and blends successive chunks "
            "(le_run_options.blend).",
        )
    if folder.config.get("n_obs_steps", 1) != 1:
        raise folder.wrong(f"n_obs_steps is {folder.config['n_obs_steps']!r}; 1 is compiled")
    rows, executed = folder.count("chunk_size"), folder.count("n_action_steps")
    if executed > rows:
        raise folder.wrong(f"n_action_steps is {executed} of chunk_size {rows}")
    columns, state_columns = folder.count("max_action_dim"), folder.count("max_state_dim")
    if folder.action_dim > columns or folder.state_dim > state_columns:
        raise folder.wrong(
            f"action and state have {folder.action_dim} and {folder.state_dim} dimensions; "
            f"max_action_dim and max_state_dim are {columns} and {state_columns}"
        )
    denoise_steps = folder.count(steps_key, 1000)
    shortest, longest = (float(folder.get(f"{end}_period", (int, float))) for end in ("min", "max"))
    if not 0 < shortest < longest:
        raise folder.wrong(f"the periods are {shortest} and {longest}")
    empty = folder.whole("empty_cameras", 0)
    return FlowFolder(
        folder, rows, executed, columns, state_columns, denoise_steps, (shortest, longest), empty
    )


def _switched(path: Path, fact: str, key: str) -> InputError:
    return InputError(
        "lerobot-switch-unsupported",
        f"{path}: {fact}: {_SWITCHES[key]}.",
        "Train without it, or run the policy with LeRobot; nothing is left out in silence.",
    )


def flow_contract(
    read: FlowFolder, robot: Embodiment, family: str, tokenizer: Tokenizer
) -> Contract:
    """What such a policy asks of a robot."""
    return Contract(
        robot,
        family,
        chunk=read.executed,
        rows=read.rows,
        instruction_length=tokenizer.length,
        vocabulary=tokenizer.vocabulary,
        denoise_steps=read.steps,
        noise_shape=(read.rows, read.columns),
        prediction_type="velocity",
        scheduler="flow_euler",
    )


def example_of(read: FlowFolder, robot: Embodiment, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images, state and instruction of the engine's shapes."""
    return (
        torch.zeros(robot.image_shape, dtype=torch.uint8),
        torch.zeros(read.folder.state_dim),
        torch.zeros(length, dtype=torch.int64),
    )


def without_padding(tensors: Tensors, read: FlowFolder) -> Tensors:
    """The state's projection without the columns that only ever meet zeros."""
    weight = tensors["weight"]
    if weight.shape[1] != read.state_columns:
        raise read.folder.wrong(
            f"max_state_dim is {read.state_columns}, state_proj takes {weight.shape[1]}"
        )
    return tensors | {"weight": weight[:, : read.folder.state_dim].clone()}


@dataclass(frozen=True)
class ModelConfig:
    """A table of a model's `config.json`; its classes have defaults for what is left out."""

    file: Path
    body: Mapping[str, Any]

    def part(self, key: str) -> ModelConfig:
        """A table within; empty where it is left out."""
        found = self.body.get(key, {})
        if not isinstance(found, Mapping):
            raise self._wrong(key, found)
        return ModelConfig(self.file, found)

    def whole(self, key: str, default: int) -> int:
        """A whole number above zero; null is as good as left out."""
        value = self.body.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._wrong(key, value)
        return value

    def number(self, key: str, default: float) -> float:
        """A number above zero and below one."""
        value = self.body.get(key, default)
        if not isinstance(value, int | float) or not 0 < value < 1:
            raise self._wrong(key, value)
        return float(value)

    def text(self, key: str, default: str) -> str:
        """A word."""
        return str(self.body.get(key, default))

    def _wrong(self, key: str, value: object) -> InputError:
        return InputError(
            "vlm-config-invalid",
            f"{self.file}: {key} is {value!r}.",
            "Fetch config.json of the model again.",
        )


def read_vlm_config(read: FlowFolder, path: Path, model_type: str) -> ModelConfig:
    """The configuration of the vision-language model that a folder only names.

    Args:
        read: the folder.
        path: the model's `config.json`, or the folder that holds it.
        model_type: of the family's model.

    Raises:
        InputError: it is missing, or is of another model.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        body = None
    if not isinstance(body, dict):
        raise InputError(
            "vlm-config-invalid",
            f"{file} does not exist or is no JSON table.",
            f"Name a folder with config.json of {_named_model(read)}.",
        )
    if body.get("model_type") != model_type:
        raise vlm_differs(read, path, f"is of the type {body.get('model_type')!r}")
    return ModelConfig(file, body)


def hold_against(
    read: FlowFolder, path: Path, told: Mapping[str, object], found: Mapping[str, object]
) -> None:
    """Hold what a configuration says against what the weights are.

    Raises:
        InputError: they differ.
    """
    for what, value in told.items():
        if value != found[what]:
            raise vlm_differs(read, path, f"says {what} {value}, the weights {found[what]}")


def vlm_differs(read: FlowFolder, path: Path, fact: str) -> InputError:
    """The error for a configuration of another model than the weights are of."""
    return InputError(
        "vlm-config-differs",
        f"The configuration in {path} {fact}; the weights in {read.folder.path} are of another "
        "model.",
        f"Take config.json of {_named_model(read)}.",
    )


def _named_model(read: FlowFolder) -> str:
    return str(read.folder.config.get("vlm_model_name", "the model that it was trained on"))
