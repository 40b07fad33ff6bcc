"""Paths as callers have them: public functions take text as well as `Path`."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

StrPath = str | os.PathLike[str]


def to_paths(instance: Any) -> None:
    """Turn text in a frozen dataclass's fields of paths into `Path`, in its `__post_init__`."""
    for field in fields(instance):
        value = getattr(instance, field.name)
        if "Path" in str(field.type).split(" | ") and isinstance(value, str):
            object.__setattr__(instance, field.name, Path(value))
