"""A policy in 16-bit floats: weights, activations and arithmetic, but for its edges.

Camera bytes are normalised, the sampler steps, and logits are compared in 32 bits; what depends on
the denoising step alone is computed in 32 bits while compiling and rounded once.
"""

from __future__ import annotations

import copy

from torch import Tensor

from libra_edge.catalog import LayerPrecision
from libra_edge.policy.imported import AnyPolicy, module_of
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.policy.libra_vla.planner import Planner
from libra_edge.policy.libra_vla.refiner import Context, Refiner

HALF = LayerPrecision(weights="fp16", activations="fp16")
# Its results become the rows of a table.
_EVALUATED_WHILE_COMPILING = ("time.", "modulate.")


def halve(policy: AnyPolicy) -> AnyPolicy:
    """A copy of the policy that computes in 16-bit floats and takes and gives what it did."""
    policy = copy.deepcopy(policy)
    if isinstance(policy, LibraVLA):
        return halve_in_place(policy.eval())
    # The modules of other families compute in what their weights are, between edges of 32 bits.
    for parameter in module_of(policy).parameters():
        parameter.data = parameter.data.half()
    return policy


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
