"""Libra-VLA as one PyTorch module: planner, refiner and the normalisation around them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from libra_edge.policy.actions import Affine
from libra_edge.policy.config import PolicyConfig
from libra_edge.policy.libra_vla.planner import Planner, intents_and_margins
from libra_edge.policy.libra_vla.refiner import Context, Refiner
from libra_edge.policy.schedule import StepTable, step_table


class Normalizer(nn.Module):
    """`Affine` on tensors; its statistics live in `stats.json`, not among the weights."""

    offset: Tensor
    scale: Tensor

    def __init__(self, affine: Affine) -> None:
        super().__init__()
        self.register_buffer("offset", torch.from_numpy(affine.offset), persistent=False)
        self.register_buffer("scale", torch.from_numpy(affine.scale), persistent=False)

    def normalize(self, physical: Tensor) -> Tensor:
        """Physical units [..., dims] → unit range."""
        return (physical - self.offset) / self.scale

    def denormalize(self, normalized: Tensor) -> Tensor:
        """Unit range [..., dims] → physical units."""
        return normalized * self.scale + self.offset


def sampler_step(
    x: Tensor, output: Tensor, previous: Tensor, row: Any, clip_sample: float | None
) -> tuple[Tensor, Tensor]:
    """One step of `libra_edge.policy.schedule`'s recurrence.

    Args:
        x: noisy actions.
        output: what the refiner predicted for them.
        previous: clean actions of the step before (zeros at the first).
        row: the five coefficients of this step.
        clip_sample: bound of the clean actions, or None.

    Returns:
        The next noisy actions and this step's clean actions.
    """
    clean = row[0] * x + row[1] * output
    if clip_sample is not None:
        clean = clean.clamp(-clip_sample, clip_sample)
    return row[2] * x + row[3] * clean + row[4] * previous, clean


class LibraVLA(nn.Module):
    """The whole policy. `plan` and `refine` are what a robot runs, in physical units."""

    def __init__(self, config: PolicyConfig, state: Affine, action: Affine) -> None:
        super().__init__()
        self.config = config
        self.planner = Planner(config)
        self.refiner = Refiner(config, config.refiner) if config.refiner is not None else None
        self.state_affine, self.action_affine = state, action
        self.state = Normalizer(state)
        self.action = Normalizer(action)
        self.table: StepTable = step_table(config.schedule)

    def plan(self, images: Tensor, instruction: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the planner.

        Args:
            images: uint8 [B, V, h, w, 3].
            instruction: int64 [B, T].
            state: physical units, float32 [B, P].

        Returns:
            Intents int32 [B, L, D] and margins float32 [B, L, D].
        """
        return intents_and_margins(self.planner(images, instruction, self.state.normalize(state)))

    def refine(self, images: Tensor, state: Tensor, intent: Tensor, noise: Tensor) -> Tensor:
        """Run the refiner's whole denoising loop.

        Args:
            images: uint8 [B, V, h, w, 3].
            state: physical units, float32 [B, P].
            intent: tokens int32 [B, H, D].
            noise: standard normal, float32 [B, H, D].

        Returns:
            Actions in physical units, float32 [B, H, D].
        """
        if self.refiner is None:
            return self.action.denormalize(self.coarse_actions(intent))
        memory = self.refiner.encode(images, self.state.normalize(state))
        context = self.refiner.context(memory, intent)
        return self.action.denormalize(self.denoise(context, noise))

    def coarse_actions(self, intent: Tensor) -> Tensor:
        """Normalised bin centres of intent tokens: what Libra-Base executes."""
        return (2.0 * intent.float() + 1.0) / self.config.bins - 1.0

    def denoise(self, context: Context, noise: Tensor) -> Tensor:
        """Noise [B, H, D] → normalised clean actions [B, H, D] in K model evaluations."""
        *_, actions = self.denoise_steps(context, noise)
        return actions

    def denoise_steps(self, context: Context, noise: Tensor) -> Iterator[Tensor]:
        """The noisy actions [B, H, D] after each denoising step; the last are the clean ones."""
        assert self.refiner is not None
        x, previous = noise, torch.zeros_like(noise)
        for time, row in zip(self.table.timesteps, self.table.coefficients, strict=True):
            timestep = torch.full((len(x),), float(time), device=x.device)
            output = self.refiner.denoise(x, self.refiner.modulation(timestep), context)
            coefficients = [float(c) for c in row]
            x, previous = sampler_step(x, output, previous, coefficients, self.table.clip_sample)
            yield x
