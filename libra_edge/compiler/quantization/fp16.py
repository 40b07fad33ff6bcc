"""A policy in 16-bit floats: weights, activations and arithmetic, but for its edges.

Camera bytes are normalised, the sampler steps, and logits are compared in 32 bits; what depends on
the denoising step alone is computed in 32 bits while compiling and rounded once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from libra_edge.catalog import LayerPrecision
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.policy.libra_vla.planner import Planner
from libra_edge.policy.libra_vla.refiner import Context, Refiner

HALF = LayerPrecision(weights="fp16", activations="fp16")
# Its results become the rows of a table.
_EVALUATED_WHILE_COMPILING = ("time.", "modulate.")


def halve(policy: LibraVLA) -> LibraVLA:
    """A copy of the policy that computes in 16-bit floats and takes and gives what it did."""
    return halve_in_place(copy.deepcopy(policy).eval())


def halve_in_place(policy: LibraVLA) -> LibraVLA:
    """The policy itself as `halve` makes it; weights that have 16 bits already are not copied."""
    policy.planner.__class__ = HalfPlanner
    if policy.refiner is not None:
        policy.refiner.__class__ = HalfRefiner
    for part in (policy.planner, policy.refiner):
        for name, parameter in part.named_parameters() if part is not None else ():
            evaluated = name.startswith(_EVALUATED_WHILE_COMPILING)
            parameter.data = parameter.data.float() if evaluated else parameter.data.half()
    return policy


@contextmanager
def products_in_single(policy: LibraVLA) -> Iterator[None]:
    """Multiply in 32 bits, one layer's weights at a time, and round each result to 16 bits.

    PyTorch's own 16-bit products on a CPU take many times as long and round no better.
    """

    def widen(layer: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        layer.float()
        return tuple(argument.float() for argument in arguments)

    def narrow(layer: nn.Module, arguments: Any, result: Tensor) -> Tensor:
        layer.half()
        return result.half()

    hooks = []
    for layer in policy.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.dtype == torch.float16:
            hooks += [layer.register_forward_pre_hook(widen), layer.register_forward_hook(narrow)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class HalfPlanner(Planner):
    """`Planner` in 16-bit floats."""

    def forward(self, images: Tensor, instruction: Tensor, state: Tensor) -> Tensor:
        """See `Planner.forward`."""
        return super().forward(images, instruction, state.half()).float()


class HalfRefiner(Refiner):
    """`Refiner` in 16-bit floats."""

    def encode(self, images: Tensor, state: Tensor) -> Tensor:
        """See `Refiner.encode`."""
        return super().encode(images, state.half())

    def denoise(self, noisy: Tensor, modulation: Tensor, context: Context) -> Tensor:
        """See `Refiner.denoise`."""
        return super().denoise(noisy.half(), modulation.half(), context).float()
