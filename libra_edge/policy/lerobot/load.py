"""Weights of a folder into modules of ours, by name, and what identifies the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from libra_edge.errors import InputError
from libra_edge.policy.config import Embodiment
from libra_edge.policy.lerobot.folder import Folder
from libra_edge.policy.weights import read_tensors, weight_files

Tensors = dict[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)


def read_weights(folder: Path) -> Tensors:
    """All tensors of the folder, whole shards or one file.

    Raises:
        InputError: they cannot be read, or hold values that are not finite.
    """
    tensors: Tensors = {}
    for file in weight_files(folder):
        tensors |= read_tensors(file)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(
                "checkpoint-not-finite",
                f"{folder}: {name} holds values that are not finite.",
                "Training diverged or the file is damaged; take an earlier checkpoint.",
            )
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def under(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    """The tensors below a prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def build(
    folder: Folder, make: Callable[[], Module], tensors: Tensors, unused: Collection[str] = ()
) -> Module:
    """A module whose sizes `config.json` tells, filled as by `fill`.

    It is made without memory first: sizes that are not the weights' cost nothing.

    Raises:
        InputError: the sizes are none of a network, or not those of the weights.
    """
    try:
        with torch.device("meta"):
            sizes = make()
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise folder.wrong(f"its sizes are those of no network ({error})") from None
    _require_same(folder, sizes, _without(tensors, unused))
    module = make()
    fill(folder, module, tensors, unused)
    return module


def fill(folder: Folder, module: nn.Module, tensors: Tensors, unused: Collection[str] = ()) -> None:
    """Put tensors into a module: every parameter and buffer, and none left over.

    Args:
        folder: for errors.
        module: to be filled; eval mode afterwards.
        tensors: by the module's names.
        unused: prefixes of what the policy has for training alone.

    Raises:
        InputError: names or shapes differ.
    """
    given = _without(tensors, unused)
    _require_same(folder, module, given)
    module.load_state_dict(given)
    module.eval().requires_grad_(False)


def _without(tensors: Tensors, unused: Collection[str]) -> Tensors:
    return {n: t for n, t in tensors.items() if not n.startswith(tuple(unused))}


def _require_same(folder: Folder, module: nn.Module, given: Tensors) -> None:
    needed = module.state_dict()
    for problem, names in (
        ("lacks", sorted(needed.keys() - given.keys())),
        ("has besides", sorted(given.keys() - needed.keys())),
    ):
        if names:
            raise InputError(
                "checkpoint-tensors-differ",
                f"{folder.path}: the file of weights {problem} {len(names)} tensors: "
                f"{', '.join(names[:3])}.",
                "config.json and the weights do not belong together; copy both from one run.",
            )
    for name, tensor in given.items():
        if tensor.shape != needed[name].shape:
            raise InputError(
                "checkpoint-wrong-shape",
                f"{folder.path}: {name} is {list(tensor.shape)}; config.json makes it "
                f"{list(needed[name].shape)}.",
                "config.json and the weights do not belong together; copy both from one run.",
            )


def folder_sha256(path: Path, robot: Embodiment, *others: bytes) -> str:
    """SHA-256 over the names and contents of all that defines the policy, and of the robot.

    Args:
        path: the folder.
        robot: its description.
        others: what the folder only names: tokenizer, configuration of its language model.
    """
    digest = hashlib.sha256(robot.model_dump_json().encode())
    own = [*path.glob("*.json"), *path.glob("*.safetensors")]
    files = [file for file in own if file.name != "train_config.json"]
    for file in sorted(files):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.name} {content}\n".encode())
    for other in others:
        digest.update(f"{hashlib.sha256(other).hexdigest()}\n".encode())
    return digest.hexdigest()


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def take(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors below a prefix, without it, taken out of the rest."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}
