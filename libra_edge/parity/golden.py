"""Golden vectors: inputs and the answers to them that travel in the release, replayed anywhere."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.bundle.verify import Release
from libra_edge.errors import IntegrityError
from libra_edge.limits import Limits
from libra_edge.parity.gates import Check, Outputs, compare, run_engines
from libra_edge.parity.samples import Sample
from libra_edge.policy.config import ActionDim
from libra_edge.policy.executor import Engines

Array = npt.NDArray[Any]
GOLDEN = "C ABI vs golden vectors"
GOLDEN_SAMPLES = 8
GOLDEN_INPUTS = ("images", "instruction", "state", "noise")
GOLDEN_OUTPUTS = ("intent", "margin", "actions")


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


def compare_golden(
    release: Release, stage: str, engines: Engines, dims: Sequence[ActionDim], limits: Limits
) -> list[Check]:
    """Replay the golden vectors through a release's engines, as `stage`."""
    arrays = read_golden(release)
    samples = [
        Sample(images, instruction, state, noise, part=0)
        for images, instruction, state, noise in zip(
            *(arrays[name] for name in GOLDEN_INPUTS), strict=True
        )
    ]
    chunk = release.manifest.policy.chunk
    used = arrays["intent"][:, :chunk]
    expected = Outputs(arrays["intent"], arrays["margin"], arrays["actions"], used)
    found = run_engines(engines, samples, arrays["intent"])
    return compare(stage, expected, found, dims, limits)


def read_golden(release: Release) -> dict[str, Array]:
    """The golden vectors by name, each [G, ...].

    Raises:
        IntegrityError: one is not an array file, or not of the shape that the engines declare.
    """
    planner, refiner = release.manifest.engines.planner, release.manifest.engines.refiner
    # The planner's outputs last: `intent` is stored as the whole plan, not as a refiner's input.
    tensors = (*planner.inputs, *refiner.inputs, *refiner.outputs, *planner.outputs)
    specs = {spec.name: (spec.dtype, spec.shape) for spec in tensors}
    arrays: dict[str, Array] = {}
    for name in (*GOLDEN_INPUTS, *GOLDEN_OUTPUTS):
        try:
            # Mapped: a header that claims more than the file holds is found without allocating.
            array = np.lib.format.open_memmap(release.member(f"golden/{name}.npy"), mode="r")
        except ValueError as error:
            raise _golden_invalid(name, str(error)) from None
        if (array.dtype.name, array.shape[1:]) != specs[name]:
            found = f"{array.dtype.name} {list(array.shape)}"
            raise _golden_invalid(name, f"it is {found}, the engines declare {specs[name]}")
        if len(array) == 0 or len(array) != len(arrays.get("images", array)):
            raise _golden_invalid(name, f"it holds {len(array)} samples")
        arrays[name] = np.asarray(array)
    return arrays


def _golden_invalid(name: str, reason: str) -> IntegrityError:
    return IntegrityError(
        "golden-invalid",
        f"golden/{name}.npy is not what it must be: {reason}.",
        "Do not use this release: compile it again.",
    )
