"""Targets and recipes: one TOML file each, in `targets/` and `calibration/`."""

from __future__ import annotations

from libra_edge.catalog.entries import BITS, Number, Precision
from libra_edge.catalog.files import (
    list_recipes,
    list_targets,
    load_recipe,
    load_target,
    nearest_recipe,
    parse_entry,
    require_supported,
)
from libra_edge.catalog.recipes import (
    HALF,
    HIGH,
    PARTS,
    Algorithm,
    LayerPrecision,
    PartName,
    Recipe,
)
from libra_edge.catalog.targets import RuntimeLibrary, Software, Target, TargetEngine

__all__ = [
    "BITS",
    "HALF",
    "HIGH",
    "PARTS",
    "Algorithm",
    "LayerPrecision",
    "Number",
    "PartName",
    "Precision",
    "Recipe",
    "RuntimeLibrary",
    "Software",
    "Target",
    "TargetEngine",
    "list_recipes",
    "list_targets",
    "load_recipe",
    "load_target",
    "nearest_recipe",
    "parse_entry",
    "require_supported",
]
