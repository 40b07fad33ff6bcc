"""Weights in safetensors: one file, or shards that an index names. Nothing here unpickles."""

from __future__ import annotations

import json
import re
from pathlib import Path

import safetensors
import torch

from libra_edge.errors import InputError

WEIGHTS, SHARD_INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def weight_files(path: Path) -> list[Path]:
    """The files that hold a folder's weights.

    Raises:
        InputError: there are none, or the index names something else.
    """
    index = path / SHARD_INDEX
    if not index.exists():
        if not (path / WEIGHTS).is_file():
            raise InputError(
                "not-a-checkpoint",
                f"{path} has neither {WEIGHTS} nor {SHARD_INDEX}.",
                "Name a checkpoint folder; convert pickled weights to safetensors first.",
            )
        return [path / WEIGHTS]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            "checkpoint-index-invalid",
            f"{index} is not a safetensors shard index.",
            "Save the checkpoint again.",
        ) from None
    for name in names:
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise InputError(
                "checkpoint-index-invalid",
                f"{index} names the shard {name!r}.",
                "Shards are called model-00001-of-00002.safetensors and lie beside the index.",
            )
        if not (path / name).is_file():
            raise InputError(
                "checkpoint-shard-missing", f"{path / name} does not exist.", "Copy all shards."
            )
    return [path / name for name in names]


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """All tensors of one file, by name.

    Raises:
        InputError: it is a pickle, or no whole safetensors file.
    """
    with file.open("rb") as stream:
        if stream.read(4).startswith(_PICKLE_STARTS):
            raise InputError(
                "checkpoint-pickle",
                f"{file} is a pickle, which can run code when it is read.",
                "Convert it to safetensors where it was trained; Libra Edge never unpickles.",
            )
    try:
        with safetensors.safe_open(file, framework="pt") as reader:
            return {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(
            "checkpoint-unreadable",
            f"{file} is not a whole safetensors file: {error}.",
            "Copy it again; compare its size and SHA-256 with the training machine's.",
        ) from None
