"""Quantise a policy: assign, calibrate, convert.

What comes out is a policy like any other for the stages that follow, with `linear` and
`image_stem` in place of its layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from libra_edge.catalog import HALF, Recipe
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.quantization.assign import (
    Precisions,
    choose_precisions,
    form_under,
    left_out,
    quantizable_layers,
)
from libra_edge.compiler.quantization.calibrate import calibrate
from libra_edge.compiler.quantization.calibration_data import CalibrationData
from libra_edge.compiler.quantization.convert import convert
from libra_edge.compiler.quantization.fp16 import halve
from libra_edge.compiler.quantization.linear import Ranges
from libra_edge.engines.base import QdqForm
from libra_edge.policy.imported import AnyCheckpoint, AnyPolicy, module_of


@dataclass(frozen=True)
class Quantized:
    """A policy with quantised layers, and why each layer is as it is.

    precisions: of every layer that could be quantised; ranges: what calibration found; reasons:
    why a layer is not as the recipe says.
    """

    policy: AnyPolicy
    precisions: Precisions
    ranges: Mapping[str, Ranges]
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash of every integer, scale and float that the graphs will hold."""
        digest = hashlib.sha256()
        for name, tensor in sorted(module_of(self.policy).state_dict().items()):
            content = tensor.reshape(-1).contiguous().view(torch.uint8)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(content.numpy().tobytes())
        return digest.hexdigest()


def quantize(
    checkpoint: AnyCheckpoint,
    recipe: Recipe,
    data: CalibrationData,
    form: QdqForm,
    cache: StageCache,
    precisions: Precisions | None = None,
) -> Quantized:
    """Calibrate and convert.

    Args:
        checkpoint: what to quantise.
        recipe: how.
        data: what to calibrate on.
        form: the engine kind's way to write quantised layers.
        cache: keeps the ranges.
        precisions: of each layer; None as the recipe says.
    """
    form = form_under(recipe, form)
    wanted = choose_precisions(checkpoint.policy, recipe, form)
    ranges = calibrate(checkpoint, recipe, wanted, data, cache)
    chosen = wanted if precisions is None else precisions
    policy = convert(checkpoint.policy, ranges, chosen, form)
    return Quantized(policy, chosen, ranges, left_out(checkpoint.policy, recipe, form))


def as_the_recipe_says(
    checkpoint: AnyCheckpoint,
    recipe: Recipe,
    data: CalibrationData | None,
    form: QdqForm,
    cache: StageCache,
    precisions: Precisions | None = None,
) -> Quantized | None:
    """The policy that a recipe makes of a checkpoint; None where no layer changes.

    Args:
        checkpoint: the policy as trained.
        recipe: what its layers become.
        data: what ranges are found on; for recipes that quantise.
        form: the engine kind's way to write quantised layers.
        cache: keeps the ranges.
        precisions: of each layer; None as the recipe says.
    """
    if recipe.precision == "fp16":
        return in_half(checkpoint)
    if not recipe.quantizes or data is None:
        return None
    return quantize(checkpoint, recipe, data, form, cache, precisions)


def in_half(checkpoint: AnyCheckpoint) -> Quantized:
    """Every layer in 16-bit floats, which needs no ranges."""
    policy = checkpoint.policy
    return Quantized(halve(policy), dict.fromkeys(quantizable_layers(policy), HALF), {})
