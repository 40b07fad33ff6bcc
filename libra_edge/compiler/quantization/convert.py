"""What stands for a layer once it is quantised, in a copy of the policy."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from libra_edge.catalog import LayerPrecision
from libra_edge.compiler.quantization.assign import Precisions, part_rest
from libra_edge.compiler.quantization.calibrate import convolutions
from libra_edge.compiler.quantization.fp16 import PARTS, halve_in_place, halve_modules
from libra_edge.compiler.quantization.image_stem import QuantizedImageTokens
from libra_edge.compiler.quantization.linear import QuantizedLinear, Ranges
from libra_edge.compiler.quantization.unbatched_blocks import flatten_blocks
from libra_edge.engines.base import QdqForm
from libra_edge.policy.imported import AnyPolicy, module_of
from libra_edge.policy.libra_vla.layers import ImageTokens
from libra_edge.policy.libra_vla.model import LibraVLA


def convert(
    policy: AnyPolicy,
    ranges: Mapping[str, Ranges],
    precisions: Precisions,
    form: QdqForm,
) -> AnyPolicy:
    """A copy of the policy with the layers that `precisions` quantises replaced.

    What is not replaced is in the floats that `part_rest` says.
    """
    result = copy.deepcopy(policy)
    module_of(result).eval()
    parts = PARTS if isinstance(result, LibraVLA) else ("",)
    halved = tuple(part for part in parts if part_rest(precisions, form, part) == "fp16")
    for name, precision in precisions.items():
        if not precision.high:
            floats = torch.float16 if name.startswith(halved) else torch.float32
            new = quantized_layer(policy, name, ranges, precision, form, floats)
            replace_layer(result, name, new)
    if isinstance(result, LibraVLA):
        halve_in_place(result, halved)
    elif halved:
        halve_modules(result)
    if form.flat and isinstance(result, LibraVLA):
        flatten_blocks(result)
    return result


def quantized_layer(
    policy: AnyPolicy,
    name: str,
    ranges: Mapping[str, Ranges],
    precision: LayerPrecision,
    form: QdqForm,
    floats: torch.dtype = torch.float32,
) -> nn.Module:
    """What stands for one layer of the policy when it is quantised, between such floats."""
    module = module_of(policy).get_submodule(name)
    if isinstance(module, ImageTokens):
        stem = [ranges[conv] for conv in convolutions(name, module)]
        assert isinstance(policy, LibraVLA)
        width = policy.config.embodiment.image_width
        return QuantizedImageTokens(module, stem, form, width).eval()
    assert isinstance(module, nn.Linear)
    return QuantizedLinear(module, ranges[name], precision, form, floats).eval()


def replace_layer(policy: AnyPolicy, name: str, new: nn.Module) -> None:
    """Put a module in a layer's place."""
    parent, _, own = name.rpartition(".")
    holder = module_of(policy).get_submodule(parent)
    if isinstance(holder, nn.ModuleDict):
        holder[own] = new
    else:
        setattr(holder, own, new)
