"""Golden vectors: inputs, and what the PyTorch policy answers to them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from libra_edge.engines.base import Array
from libra_edge.parity.gates import Outputs, run_engines
from libra_edge.parity.samples import Sample
from libra_edge.policy.executor import Engines

GOLDEN_SAMPLES = 8


def golden_members(policy: Engines, samples: Sequence[Sample]) -> dict[str, bytes]:
    """The `golden/…` members of a release; actions are made from the plan's first chunk."""
    first = [replace(sample, part=0) for sample in samples[:GOLDEN_SAMPLES]]
    return members_of(first, run_engines(policy, first))


def members_of(first: Sequence[Sample], outputs: Outputs) -> dict[str, bytes]:
    """The same of samples that have been run."""
    arrays: dict[str, Array] = {
        "images": np.stack([s.images for s in first]),
        "instruction": np.stack([s.instruction for s in first]),
        "state": np.stack([s.state for s in first]),
        "noise": np.stack([s.noise for s in first]),
        "intent": outputs.intent,
        "margin": outputs.margin,
        "actions": outputs.actions,
    }
    return {f"golden/{name}.npy": _npy(array) for name, array in arrays.items()}


def _npy(array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()
