"""Golden vectors: inputs and the answers to them that travel in the release, replayed anywhere."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.bundle.manifest import Manifest
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


def golden_members(policy: Engines, samples: Sequence[Sample]) -> dict[str, bytes]:
    """The `golden/…` members of a release; actions are made from the plan's first chunk.

    What a policy has not (words, noise, intents) has no file.
    """
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
    return {f"golden/{name}.npy": _npy(array) for name, array in arrays.items() if array.size}


def _npy(array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def compare_golden(
    release: Release, stage: str, engines: Engines, dims: Sequence[ActionDim], limits: Limits
) -> list[Check]:
    """Replay the golden vectors through a release's engines, as `stage`."""
    arrays = read_golden(release)
    inputs = zip(*(arrays[n] for n in ("images", "instruction", "state", "noise")), strict=True)
    samples = [
        Sample(images, instruction, state, noise, part=0)
        for images, instruction, state, noise in inputs
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
    arrays: dict[str, Array] = {}
    for name, (dtype, shape) in _specs(release.manifest).items():
        if 0 in shape:
            continue
        try:
            # Mapped: a header that claims more than the file holds is found without allocating.
            array = np.lib.format.open_memmap(release.member(f"golden/{name}.npy"), mode="r")
        except ValueError as error:
            raise _golden_invalid(name, str(error)) from None
        if (array.dtype.name, array.shape[1:]) != (dtype, shape):
            found = f"{array.dtype.name} {list(array.shape)}"
            raise _golden_invalid(name, f"it is {found}, the engines declare {(dtype, shape)}")
        if len(array) == 0 or len(array) != len(arrays.get("images", array)):
            raise _golden_invalid(name, f"it holds {len(array)} samples")
        arrays[name] = np.asarray(array)
    for name, (dtype, shape) in _specs(release.manifest).items():
        arrays.setdefault(name, np.empty((len(arrays["images"]), *shape), dtype))
    return arrays


def _specs(manifest: Manifest) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Element type and shape of each golden array, empty where the policy has none of it."""
    engines, dims = manifest.engines.by_name.values(), len(manifest.embodiment.actions)
    inputs = {spec.name: spec for engine in engines for spec in engine.inputs}
    outputs = {spec.name: spec for engine in engines for spec in engine.outputs}
    nothing = {
        "instruction": ("int64", (0,)),
        "noise": ("float32", (0,)),
        "intent": ("int32", (0, dims)),
        "margin": ("float32", (0, dims)),
    }
    found = {
        name: (spec.dtype, spec.shape)
        # The outputs last: `intent` is stored as the whole plan, not as a refiner's input.
        for name, spec in (inputs | outputs).items()
    }
    order = ("images", "instruction", "state", "noise", "intent", "margin", "actions")
    return {name: {**nothing, **found}[name] for name in order}


def _golden_invalid(name: str, reason: str) -> IntegrityError:
    return IntegrityError(
        "golden-invalid",
        f"golden/{name}.npy is not what it must be: {reason}.",
        "Do not use this release: compile it again.",
    )
