"""Noise processes and samplers, reduced to tables of coefficients (NumPy).

Every supported sampler is one affine recurrence per denoising step i:

    clean  = clip(from_sample[i] * x + from_output[i] * model(x, t[i]))
    x_next = keep[i] * x + take[i] * clean + remember[i] * previous_clean

so a compiler needs a [K, 5] table and at most one remembered tensor, and never the sampler's code.
Sources: DDPM (Ho et al. 2020) with the squared-cosine betas of Nichol and Dhariwal 2021, DDIM
(Song et al. 2021, eta = 0), DPM-Solver++ 2M (Lu et al. 2022), flow matching (Lipman et al. 2023).
The tests hold every table against the diffusers library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.policy.config import ScheduleConfig

Doubles = npt.NDArray[np.float64]

COEFFICIENTS = ("from_sample", "from_output", "keep", "take", "remember")


@dataclass(frozen=True)
class StepTable:
    """A sampler: `timesteps` float32 [K] fed to the model and `coefficients` float32 [K, 5]."""

    timesteps: npt.NDArray[np.float32]
    coefficients: npt.NDArray[np.float32]
    clip_sample: float | None

    @property
    def remembers(self) -> bool:
        """Whether any step uses the clean sample of the step before."""
        return bool(np.any(self.coefficients[:, 4]))


def squared_cosine_alphas(train_steps: int) -> Doubles:
    """Cumulative alpha product of `squaredcos_cap_v2`, float64 [train_steps]."""

    def alpha_bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [
        min(1.0 - alpha_bar((i + 1) / train_steps) / alpha_bar(i / train_steps), 0.999)
        for i in range(train_steps)
    ]
    return np.asarray(np.cumprod(1.0 - np.array(betas)), dtype=np.float64)


def inference_timesteps(config: ScheduleConfig) -> Doubles:
    """The training time steps visited at inference, descending, float64 [K].

    Follows the diffusers conventions, see `ScheduleConfig.spread_points`.
    """
    train, steps, points = config.train_steps, config.denoise_steps, config.spread_points
    if config.timestep_spacing == "trailing":
        return np.round(np.arange(train, 0, -train / steps))[:steps] - 1
    if config.timestep_spacing == "linspace":
        visited = np.linspace(0, train - 1, points).round()
    else:
        visited = (np.arange(points) * (train // points)).astype(np.float64)
    return visited[::-1][:steps].copy()


def training_levels(config: ScheduleConfig) -> tuple[Doubles, Doubles]:
    """Signal and noise level of every training time step: x_t = signal * x_0 + noise * eps."""
    if config.flow_matching:
        noise = (np.arange(config.train_steps) + 1.0) / config.train_steps
        return 1.0 - noise, noise
    alphas = squared_cosine_alphas(config.train_steps)
    return np.sqrt(alphas), np.sqrt(1.0 - alphas)


def training_target(config: ScheduleConfig, clean: Any, eps: Any, signal: Any, noise: Any) -> Any:
    """What the refiner has to predict; works on any array type with arithmetic operators."""
    if config.prediction_type == "epsilon":
        return eps
    if config.prediction_type == "sample":
        return clean
    return eps - clean if config.flow_matching else signal * eps - noise * clean


def _clean_from_output(config: ScheduleConfig, signal: float, noise: float) -> tuple[float, float]:
    if config.prediction_type == "epsilon":
        return 1.0 / signal, -noise / signal
    if config.prediction_type == "sample":
        return 0.0, 1.0
    return (1.0, -noise) if config.flow_matching else (signal, -noise)


def _solver_pp(
    signals: Doubles, noises: Doubles, i: int, next_signal: float, next_noise: float
) -> tuple[float, float, float]:
    keep = next_noise / noises[i]
    if next_noise == 0.0:
        return keep, next_signal, 0.0
    log_snr = np.log(signals) - np.log(noises)
    width = math.log(next_signal) - math.log(next_noise) - log_snr[i]
    gain = -next_signal * math.expm1(-width)
    if i == 0:
        return keep, gain, 0.0
    ratio = (log_snr[i] - log_snr[i - 1]) / width
    return keep, gain * (1.0 + 0.5 / ratio), -gain * 0.5 / ratio


def step_table(config: ScheduleConfig) -> StepTable:
    """The sampler of a policy as coefficients; the last step lands on the clean action."""
    steps = config.denoise_steps
    if config.flow_matching:
        noises = np.linspace(1.0, 0.0, steps + 1)[:-1]
        signals = 1.0 - noises
        # Training time step j has noise level (j + 1) / train_steps.
        times = noises * config.train_steps - 1.0
        following = [*zip(signals[1:], noises[1:], strict=True), (1.0, 0.0)]
    else:
        alphas = squared_cosine_alphas(config.train_steps)
        times = inference_timesteps(config)
        chosen = alphas[times.astype(np.int64)]
        signals, noises = np.sqrt(chosen), np.sqrt(1.0 - chosen)
        following = [*zip(signals[1:], noises[1:], strict=True), (1.0, 0.0)]
    rows = []
    for i, (next_signal, next_noise) in enumerate(following):
        from_sample, from_output = _clean_from_output(config, signals[i], noises[i])
        if config.scheduler == "dpm_solver_pp":
            keep, take, remember = _solver_pp(signals, noises, i, next_signal, next_noise)
        else:
            keep = next_noise / noises[i]
            take, remember = next_signal - keep * signals[i], 0.0
        rows.append((from_sample, from_output, keep, take, remember))
    return StepTable(times.astype(np.float32), np.array(rows, dtype=np.float32), config.clip_sample)
