"""DDIM as diffusers computes it, reduced to six coefficients of each step (NumPy).

    clean  = clip(from_sample * x + from_output * output)
    x_next = keep * x + take * clean + 0 * previous + again * output

The sixth is needed because diffusers adds noise by the network's own output, also where the clean
sample was clipped. Source: Song et al. 2021 (arXiv 2010.02502), eta = 0; the time steps are those
that diffusers calls "leading".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from libra_edge.policy.schedule import squared_cosine_alphas

Floats = npt.NDArray[np.float32]
BETAS = ("squaredcos_cap_v2", "linear", "scaled_linear")


def cumulative_alphas(
    schedule: str, steps: int, start: float, end: float
) -> npt.NDArray[np.float64]:
    """Product of 1 - beta up to each training step, float64 [steps]."""
    if schedule == "squaredcos_cap_v2":
        return squared_cosine_alphas(steps)
    power = 2.0 if schedule == "scaled_linear" else 1.0
    betas = np.linspace(start ** (1 / power), end ** (1 / power), steps) ** power
    return np.asarray(np.cumprod(1.0 - betas))


def ddim(
    alphas: npt.NDArray[np.float64], steps: int, *, predicts_noise: bool
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Time steps int64 [K], descending, and coefficients float32 [K, 6].

    Args:
        alphas: of every training step.
        steps: K.
        predicts_noise: the network predicts the noise; else the clean sample.
    """
    apart = len(alphas) // steps
    times = (np.arange(steps) * apart)[::-1].copy()
    rows = []
    for time in times:
        now = alphas[time]
        following = alphas[time - apart] if time >= apart else 1.0
        signal, noise = np.sqrt(now), np.sqrt(1.0 - now)
        take, left = np.sqrt(following), np.sqrt(1.0 - following)
        if predicts_noise:
            rows.append((1.0 / signal, -noise / signal, 0.0, take, 0.0, left))
        else:
            rows.append((0.0, 1.0, left / noise, take, 0.0, -left * signal / noise))
    return times, np.array(rows, dtype=np.float32)
