"""Every coefficient table against the diffusers library, plus what must hold for any table."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libra_edge.policy.config import ScheduleConfig
from libra_edge.policy.libra_vla.model import sampler_step
from libra_edge.policy.schedule import (
    inference_timesteps,
    squared_cosine_alphas,
    step_table,
    training_levels,
    training_target,
)


def pretend_model(x: torch.Tensor, t: float) -> torch.Tensor:
    return torch.sin(3 * x + t / 50) * 0.7 + 0.2 * x.roll(1)


def run_table(config: ScheduleConfig, noise: torch.Tensor) -> torch.Tensor:
    table = step_table(config)
    x, previous = noise, torch.zeros_like(noise)
    for t, row in zip(table.timesteps, table.coefficients, strict=True):
        output = pretend_model(x, float(t))
        x, previous = sampler_step(x, output, previous, row.tolist(), config.clip_sample)
    return x


def run_diffusers(scheduler: Any, steps: int, noise: torch.Tensor, **options: Any) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    x = noise
    for t in scheduler.timesteps:
        x = scheduler.step(pretend_model(x, float(t)), t, x, **options).prev_sample
    return x


DIFFUSERS_TYPE = {"epsilon": "epsilon", "sample": "sample", "velocity": "v_prediction"}


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "velocity"])
# Not linspace: there the library steps back by train_steps / K, past the next point it visits.
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_ddim_is_the_library_s(prediction: Any, spacing: Any, clip: float | None) -> None:
    config = ScheduleConfig(
        prediction_type=prediction, timestep_spacing=spacing, denoise_steps=10, clip_sample=clip
    )
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=100,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=DIFFUSERS_TYPE[prediction],
        timestep_spacing=spacing,
        clip_sample=clip is not None,
        clip_sample_range=clip or 1.0,
    )
    noise = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    expected = run_diffusers(scheduler, 10, noise, use_clipped_model_output=True)
    torch.testing.assert_close(run_table(config, noise), expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "velocity"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_dpm_solver_is_the_library_s(prediction: Any, spacing: Any, steps: int) -> None:
    config = ScheduleConfig(
        train_steps=1000,
        prediction_type=prediction,
        scheduler="dpm_solver_pp",
        timestep_spacing=spacing,
        denoise_steps=steps,
        clip_sample=None,
    )
    scheduler = diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=DIFFUSERS_TYPE[prediction],
        timestep_spacing=spacing,
    )
    noise = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    expected = run_diffusers(scheduler, steps, noise)
    torch.testing.assert_close(run_table(config, noise), expected, atol=1e-3, rtol=1e-3)


def test_flow_matching_is_the_library_s_euler() -> None:
    config = ScheduleConfig(
        train_steps=1000,
        prediction_type="velocity",
        scheduler="flow_euler",
        denoise_steps=8,
        clip_sample=None,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / 8, 8).tolist())
    noise = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    x = noise
    for time, t in zip(step_table(config).timesteps, scheduler.timesteps, strict=True):
        x = scheduler.step(pretend_model(x, float(time)), t, x).prev_sample
    torch.testing.assert_close(run_table(config, noise), x, atol=1e-5, rtol=1e-5)


def test_squared_cosine_alphas_are_the_library_s() -> None:
    library = diffusers.DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    ours = squared_cosine_alphas(100)
    np.testing.assert_allclose(ours, library.alphas_cumprod.numpy(), rtol=1e-4)


schedules = st.builds(
    lambda train, scheduler, prediction, spacing, clip, steps: ScheduleConfig(
        train_steps=train,
        scheduler=scheduler,
        prediction_type="velocity" if scheduler == "flow_euler" else prediction,
        timestep_spacing=spacing,
        clip_sample=clip,
        denoise_steps=min(steps, train - 1),
    ),
    st.integers(2, 1000),
    st.sampled_from(["ddim", "dpm_solver_pp", "flow_euler"]),
    st.sampled_from(["epsilon", "sample", "velocity"]),
    st.sampled_from(["leading", "trailing", "linspace"]),
    st.sampled_from([None, 1.0]),
    st.integers(1, 50),
)


@given(schedules)
@settings(max_examples=200, deadline=None)
def test_a_perfect_model_is_recovered_from_any_schedule(config: ScheduleConfig) -> None:
    """A model that knows the clean action brings any noise to it, whatever the sampler."""
    table = step_table(config)
    assert np.isfinite(table.coefficients).all()
    assert table.coefficients.shape == (config.denoise_steps, 5)
    assert (np.diff(table.timesteps) < 0).all()
    random = np.random.default_rng(0)
    clean = random.uniform(-0.9, 0.9, (5, 4))
    x, previous = random.standard_normal((5, 4)), np.zeros((5, 4))
    for row in table.coefficients.astype(np.float64):
        if row[1] == 0:
            raise AssertionError("the model's output is ignored")
        output = (clean - row[0] * x) / row[1]
        found = row[0] * x + row[1] * output
        x, previous = row[2] * x + row[3] * found + row[4] * previous, found
    # At the noisiest step epsilon prediction divides by a signal near zero.
    amplification = float(np.abs(table.coefficients[:, :2]).max())
    np.testing.assert_allclose(x, clean, atol=1e-5 + 1e-6 * amplification)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "velocity"])
def test_the_table_undoes_what_training_asks_for(prediction: Any) -> None:
    """Training target and sampler agree: the target, fed back, gives the clean action."""
    config = ScheduleConfig(prediction_type=prediction, denoise_steps=100)
    signal, noise = training_levels(config)
    table = step_table(config)
    random = np.random.default_rng(1)
    clean, eps = random.uniform(-1, 1, 4), random.standard_normal(4)
    for t, row in zip(table.timesteps.astype(int), table.coefficients, strict=True):
        x = signal[t] * clean + noise[t] * eps
        target = training_target(config, clean, eps, signal[t], noise[t])
        np.testing.assert_allclose(row[0] * x + row[1] * target, clean, atol=2e-3)


def test_visited_timesteps() -> None:
    config = ScheduleConfig(denoise_steps=5)
    assert inference_timesteps(config).tolist() == [99, 79, 59, 39, 19]
