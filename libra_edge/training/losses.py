"""The two losses of Libra-VLA and the curriculum between them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from libra_edge.policy.config import ScheduleConfig
from libra_edge.policy.libra_vla.refiner import Context, Refiner
from libra_edge.policy.schedule import training_levels, training_target
from libra_edge.training.config import CurriculumConfig


def coarse_loss(logits: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of intents and their accuracy, over the unmasked steps.

    Args:
        logits: float [B, L, D, N].
        tokens: int [B, L, D].
        mask: float [B, L].
    """
    each = F.cross_entropy(logits.float().movedim(-1, 1), tokens.long(), reduction="none")
    right = (logits.argmax(-1) == tokens).float()
    weight = mask[..., None].expand_as(each)
    total = weight.sum().clamp(min=1)
    return (each * weight).sum() / total, (right * weight).sum() / total


class Diffusion:
    """The denoising loss of a schedule: every prediction type, DDPM and flow matching."""

    def __init__(self, schedule: ScheduleConfig, device: torch.device) -> None:
        signal, noise = training_levels(schedule)
        self._schedule = schedule
        self._signal = torch.from_numpy(signal).float().to(device)
        self._noise = torch.from_numpy(noise).float().to(device)

    def loss(
        self,
        refiner: Refiner,
        context: Context,
        clean: Tensor,
        mask: Tensor,
        draws: int,
        generator: torch.Generator,
    ) -> Tensor:
        """Mean squared error of the refiner's prediction, `draws` noises per observation.

        Args:
            refiner: the model.
            context: of B observations.
            clean: normalised actions [B, H, D].
            mask: float [B, H].
            draws: noises and time steps per observation; they share the context.
            generator: source of noises and time steps.
        """
        device = clean.device
        clean = clean.repeat_interleave(draws, 0)
        eps = torch.randn(clean.shape, generator=generator).to(device)
        time = torch.randint(len(self._signal), (len(clean),), generator=generator).to(device)
        signal, noise = (level[time][:, None, None] for level in (self._signal, self._noise))
        target = training_target(self._schedule, clean, eps, signal, noise)
        shared = context._replace(intents=context.intents.repeat_interleave(draws, 0))
        output = refiner.denoise(
            signal * clean + noise * eps, refiner.modulation(time.float()), shared
        )
        weight = mask.repeat_interleave(draws, 0)[..., None].expand_as(target)
        squared = (output.float() - target).square() * weight
        return squared.sum() / weight.sum().clamp(min=1)


class Curriculum:
    """Decides, step by step, which share of samples sees the planner's own intents."""

    SMOOTHING = 0.95

    def __init__(self, config: CurriculumConfig) -> None:
        self._config = config
        self.accuracy = 0.0
        self.passed_at: int | None = None

    def own_share(self, step: int) -> float:
        """Share of own intents at a training step, 0 to 1."""
        if self._config.mode != "dynamic":
            return float(self._config.mode == "own")
        if self.passed_at is None:
            return 0.0
        return min(1.0, (step - self.passed_at) / self._config.ramp_steps)

    def observe(self, step: int, accuracy: float) -> None:
        """Take in a batch's token accuracy."""
        self.accuracy = self.SMOOTHING * self.accuracy + (1 - self.SMOOTHING) * accuracy
        if self.passed_at is None and self.accuracy >= self._config.threshold:
            self.passed_at = step


def mixed_intents(
    logits: Tensor, tokens: Tensor, own_share: float, generator: torch.Generator
) -> Tensor:
    """Ground-truth tokens [B, L, D], a share of the samples replaced by sampled ones.

    Sampled rather than argmax, as in the paper: the refiner meets the planner's doubts.
    """
    if own_share == 0.0:
        return tokens
    probabilities = logits.detach().float().softmax(-1).flatten(0, 2).cpu()
    sampled = torch.multinomial(probabilities, 1, generator=generator).view(tokens.shape)
    own = torch.rand((len(tokens), 1, 1), generator=generator) < own_share
    return torch.where(own.to(tokens.device), sampled.to(tokens), tokens)
