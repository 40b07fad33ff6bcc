"""How the error grows through the denoising steps: the release's fused loop against the policy."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from libra_edge.bundle.engine_facts import RefinerEngine
from libra_edge.engines import engine
from libra_edge.parity.samples import Sample
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.verification.details.differences import DenoisingDetail, StepError, bootstrap
from libra_edge.verification.isolation.remote import RemoteModel, open_model
from libra_edge.verification.unrolled_graphs import with_partial_samples

SAMPLES = 48
Array = npt.NDArray[Any]


def denoising_detail(
    policy: LibraVLA, model: bytes, facts: RefinerEngine, samples: Sequence[Sample], seed: int
) -> DenoisingDetail | None:
    """Compare the partial samples of the policy and of a release's plain refiner graph.

    Args:
        policy: as it was trained.
        model: the plain graph, in either form.
        facts: how the release runs it; where that is not plain ONNX Runtime, it runs as written.
        samples: the first 48 are used.
        seed: of the bootstrap.

    Returns:
        None for a policy without denoising, where something is not finite, or where the graph has
        not the policy's steps, and so nothing to hold them against.
    """
    if policy.refiner is None:
        return None
    partial = with_partial_samples(onnx.load_from_string(model))
    if len(partial.graph.output) != len(policy.table.timesteps):
        return None
    some = samples[:SAMPLES]
    session, runs_in = _session(partial.SerializeToString(), facts)
    with closing(session):
        pairs = [_both(policy, session, sample) for sample in some]
    error = np.abs(np.stack([wanted - found for wanted, found in pairs]).astype(np.float64))
    if not np.isfinite(error).all():
        return None
    span = np.array([dim.upper - dim.lower for dim in policy.config.embodiment.actions])
    error *= policy.action.scale.numpy() / span
    steps = tuple(_step(k, error[:, k], seed) for k in range(error.shape[1]))
    return DenoisingDetail(samples=len(some), seed=seed, runs_in=runs_in, steps=steps)


def _session(partial: bytes, facts: RefinerEngine) -> tuple[RemoteModel, str]:
    known = facts.kind == "onnxruntime"
    if known and engine("onnxruntime").is_available(facts.provider):
        options = dict(facts.session_options)
        return open_model(partial, facts.provider, options, optimize=True), facts.provider
    return open_model(partial, "CPUExecutionProvider", {}, optimize=False), "CPU, as written"


def _step(step: int, error: npt.NDArray[np.float64], seed: int) -> StepError:
    return StepError(
        step=step,
        mean=bootstrap(error.mean(axis=(1, 2)), np.mean, seed),
        p99=float(np.percentile(error, 99)),
        max=float(error.max()),
    )


@torch.inference_mode()
def _both(policy: LibraVLA, session: RemoteModel, sample: Sample) -> tuple[Array, Array]:
    """Noisy actions [K, H, D] after each step, of policy and session."""
    assert policy.refiner is not None
    images, words, state, noise = (
        torch.from_numpy(a)[None]
        for a in (sample.images, sample.instruction, sample.state, sample.noise)
    )
    plan, _ = policy.plan(images, words, state)
    chunk = noise.shape[1]
    intent = plan[:, sample.part * chunk :][:, :chunk]
    memory = policy.refiner.encode(images, policy.state.normalize(state))
    wanted = policy.denoise_steps(policy.refiner.context(memory, intent), noise)
    observed: dict[str, Array] = {"images": sample.images, "state": sample.state}
    found = session.run({**observed, "intent": intent[0].numpy(), "noise": sample.noise})
    return torch.cat(list(wanted)).numpy(), np.stack(list(found.values()))
