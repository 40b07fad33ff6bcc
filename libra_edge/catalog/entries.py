"""What targets and recipes share: how their tables are read, and the names of number formats.

The words under each key are its description in the generated reference.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from libra_edge.models import Strict

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
# What a target's engines can run: the arithmetic of a policy's matrix products.
Precision = Literal[
    "fp32", "fp16", "int8", "int8-weights", "int4-weights", "fp8", "int4-fp8", "nvfp4"
]
Number = Literal["fp32", "fp16", "int8", "int4", "fp8", "nvfp4"]
BITS: dict[Number, int] = {"fp32": 32, "fp16": 16, "int8": 8, "fp8": 8, "int4": 4, "nvfp4": 4}


class Table(Strict, strict=True, use_attribute_docstrings=True):
    """A table of a file; a key it does not know is refused."""


class Entry(Table):
    """The file itself, `NAME.toml`."""

    name: Name
    """The file's name; no key of the file."""
    schema_version: Literal[1]
    """Of the file's form. A program that does not know it refuses the file."""
    summary: Annotated[str, Field(min_length=1, max_length=120)]
    """One line for lists and for the remedies of errors."""
