"""Diffusion Policy as a context, one denoising step and tables (arXiv 2303.04137)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from libra_edge.policy.diffusion.eyes import Framing
from libra_edge.policy.diffusion.unet import Unet
from libra_edge.policy.family import Graph, Parts, Tables
from libra_edge.policy.lerobot.normalize import Normalizer
from libra_edge.policy.lerobot.pictures import Pictures


class Context(nn.Module):
    """images and state of the last S steps to what conditions the denoiser, once per chunk."""

    def __init__(
        self,
        pictures: Pictures,
        framing: Framing,
        state: Normalizer,
        eyes: nn.ModuleList,
        unet: Unet,
    ) -> None:
        super().__init__()
        self.pictures, self.framing, self.state, self.eyes, self.unet = (
            pictures,
            framing,
            state,
            eyes,
            unet,
        )

    def forward(self, images: Tensor, state: Tensor) -> Tensor:
        """Images uint8 [S, V, h, w, 3], state [S, P]; without the first axis where S = 1."""
        pictures = self.pictures(images)
        shared = len(self.eyes) == 1
        features = [
            self.eyes[0 if shared else at](self.framing(picture))
            for at, picture in enumerate(pictures)
        ]
        states = self.state(state).reshape(self.pictures.steps, -1)
        seen = torch.cat([states, *(one.float() for one in features)], -1)
        return self.unet.of_observation(seen.flatten())


class Step(nn.Module):
    """One denoising step: x [horizon, D], its rows of the tables and the context to the next x."""

    def __init__(self, unet: Unet, clip: float | None) -> None:
        super().__init__()
        self.unet, self.clip = unet, clip

    def forward(self, x: Tensor, modulation: Tensor, coefficients: Tensor, seen: Tensor) -> Tensor:
        """Coefficients [6], see `libra_edge.policy.diffusion.sampler`."""
        output = self.unet(x, modulation + seen).float()
        from_sample, from_output, keep, take, _, again = coefficients.unbind(0)
        clean = from_sample * x + from_output * output
        if self.clip is not None:
            clean = clean.clamp(-self.clip, self.clip)
        return keep * x + take * clean + again * output


class DiffusionPolicy(nn.Module):
    """The whole policy.

    Args:
        context, step: its modules.
        tables: of the loop.
        example: images and state of the engine's shapes.
        horizon: rows of the sample.
    """

    def __init__(
        self,
        context: Context,
        step: Step,
        tables: Tables,
        example: tuple[Tensor, Tensor],
        horizon: int,
    ) -> None:
        super().__init__()
        self.context, self.step, self.tables = context, step, tables
        self._example, self._horizon = example, horizon

    def refine(self, images: Tensor, state: Tensor, instruction: Tensor, noise: Tensor) -> Tensor:
        """See `libra_edge.policy.family.Policy`; no words are used."""
        *_, sample = self.refine_steps(images, state, instruction, noise)
        return self.tables.finish(sample)

    def refine_steps(
        self, images: Tensor, state: Tensor, instruction: Tensor, noise: Tensor
    ) -> Iterator[Tensor]:
        """See `libra_edge.policy.family.Policy`."""
        seen, x = self.context(images, state), noise
        rows = zip(self.tables.modulation, self.tables.coefficients, strict=True)
        for modulation, coefficients in rows:
            x = self.step(x, torch.from_numpy(modulation), torch.from_numpy(coefficients), seen)
            yield x

    @torch.no_grad()
    def parts(self) -> Parts:
        """Context, step and tables."""
        names = ("images", "state")
        context = Graph("context", self.context, self._example, names, ("seen",))
        rows = (self.tables.modulation[0], self.tables.coefficients[0])
        noise = torch.zeros(self._horizon, len(self.tables.scale))
        arguments = (
            noise,
            *(torch.from_numpy(row.copy()) for row in rows),
            self.context(*self._example),
        )
        step = Graph(
            "step", self.step, arguments, ("x", "modulation", "coefficients", "seen"), ("x_next",)
        )
        return Parts(context=context, step=step, tables=self.tables)
