"""A checkpoint of whatever family: Libra-VLA's own folders, and those that others have written."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import libra_edge.policy as families_folder
from libra_edge.errors import InputError
from libra_edge.policy.checkpoint import Checkpoint
from libra_edge.policy.family import Contract, Family, Policy, ReadOptions
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.policy.tokenizer import Tokenizer

CONFIG = "config.json"


@dataclass(frozen=True)
class Imported:
    """A folder of another family, read; the names are those of `Checkpoint`."""

    path: Path
    config: Contract
    policy: Policy
    sha256: str
    tokenizer: Tokenizer | None
    notes: tuple[str, ...] = ()
    random_weights: bool = False


AnyCheckpoint = Checkpoint | Imported
AnyPolicy = LibraVLA | Policy


# Of weights in memory: from here on one call takes a second and more, and each copy is felt.
_HEAVY_BYTES = 2**29


def is_heavy(checkpoint: AnyCheckpoint) -> bool:
    """Whether a policy is judged on fewer observations, and unrolled only where that is asked."""
    parameters = module_of(checkpoint.policy).parameters()
    return sum(p.numel() * p.element_size() for p in parameters) > _HEAVY_BYTES


def module_of(policy: AnyPolicy) -> nn.Module:
    """A policy as the PyTorch module that it is.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(policy, nn.Module):
        raise TypeError(f"{type(policy).__name__} is no module of PyTorch")
    return policy


def families() -> tuple[Family, ...]:
    """Every family, found by listing the folders that hold a `family.py`."""
    folders = [m.name for m in pkgutil.iter_modules(families_folder.__path__) if m.ispkg]
    root = Path(next(iter(families_folder.__path__)))
    return tuple(
        importlib.import_module(f"{families_folder.__name__}.{name}.family").FAMILY
        for name in sorted(folders)
        if (root / name / "family.py").is_file()
    )


def family_of(folder: Path) -> Family | None:
    """The family that a folder's `config.json` belongs to; None where none knows it."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, Mapping):
        return None
    found: dict[str, Any] = dict(config)
    return next((family for family in families() if family.recognises(found)), None)


def read_imported(family: Family, folder: Path, options: ReadOptions) -> Imported:
    """Read a folder of another family.

    Raises:
        InputError: anything about it that does not fit, or an option that is not for its family.
    """
    for option in ("tokenizer", "vlm_config"):
        if getattr(options, option) is not None and option not in family.takes:
            raise InputError(
                "usage",
                f"--{option.replace('_', '-')} is for policies that only name it, and those of the "
                f"type {family.name!r} have none.",
                "Leave it out.",
            )
    loaded = family.read(folder, options)
    return Imported(
        folder, loaded.contract, loaded.policy, loaded.sha256, loaded.tokenizer, loaded.notes
    )
