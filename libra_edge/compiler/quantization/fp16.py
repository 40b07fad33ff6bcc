"""A policy, or what a recipe leaves of it, in 16-bit floats: weights, activations and arithmetic.

Camera bytes are normalised, the sampler steps, and logits are compared in 32 bits; what depends on
the denoising step alone is computed in 32 bits while compiling and rounded once.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import Tensor

from libra_edge.policy.imported import AnyPolicy, module_of
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.policy.libra_vla.planner import Planner
from libra_edge.policy.libra_vla.refiner import Context, Refiner

# Its results become the rows of a table.
_EVALUATED_WHILE_COMPILING = ("time.", "modulate.")
PARTS = ("planner", "refiner")
_SMALLEST_NORMAL_HALF = 2.0**-14
_LARGEST_HALF = 65504.0


def halve(policy: AnyPolicy) -> AnyPolicy:
    """A copy of the policy that computes in 16-bit floats and takes and gives what it did."""
    policy = copy.deepcopy(policy)
    if isinstance(policy, LibraVLA):
        return halve_in_place(policy.eval())
    return halve_modules(policy)


def halve_modules(policy: AnyPolicy) -> AnyPolicy:
    """A policy of another family itself, in 16-bit floats.

    Its modules compute in what their weights are, between edges of 32 bits.
    """
    for parameter in module_of(policy).parameters():
        parameter.data = parameter.data.half()
    return policy


def halve_in_place(policy: LibraVLA, parts: Collection[str] = PARTS) -> LibraVLA:
    """The policy itself as `halve` makes it; weights that have 16 bits already are not copied.

    Layers that stand for quantised ones have no weights of their own and stay as they are.

    Args:
        policy: what to change.
        parts: `planner`, `refiner` or both.
    """
    for name, own in zip(PARTS, (HalfPlanner, HalfRefiner), strict=True):
        part = getattr(policy, name)
        if part is None or name not in parts:
            continue
        part.__class__ = own
        for name, parameter in part.named_parameters():
            evaluated = name.startswith(_EVALUATED_WHILE_COMPILING)
            parameter.data = parameter.data.float() if evaluated else parameter.data.half()
    return policy


def stored_scale(scale: Tensor, floats: torch.dtype, *, of_floats: bool = False) -> Tensor:
    """Positive scales as a graph stores them, in the floats that are rounded with them.

    16-bit ones are rounded up, so that nothing is clipped. Below the normal ones they lose digits:
    where the rounded numbers are floats too, these can be the smaller ones instead.
    """
    if floats == torch.float32:
        return scale.float()
    least = _SMALLEST_NORMAL_HALF if of_floats else 0.0
    scale = scale.double().clamp(least, _LARGEST_HALF)
    near = scale.to(floats)
    # The next float up has the next bits.
    above = (near.view(torch.int16) + 1).view(floats)
    return torch.where(near.double() < scale, above, near)


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
