"""What broken cameras and sensors send, and poses that no demonstration holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from libra_edge.parity.samples import Sample
from libra_edge.policy.checkpoint import Checkpoint
from libra_edge.policy.executor import Floats, Images

# In standard deviations: one that is rare, and one that only a broken sensor sends.
RARE, BROKEN = 3.0, 10.0
_STATE = "observation.state"


def edge_inputs(truth: Checkpoint, ordinary: Sample) -> list[Sample]:
    """Every odd picture with an ordinary, a high and a low state, and every odd state.

    Args:
        truth: the policy, with the statistics that its states are measured by.
        ordinary: whose picture, words and noise are used where nothing is odd.
    """
    mean, std = (np.array(truth.statistics[_STATE][name], np.float32) for name in ("mean", "std"))
    far = (mean, mean + BROKEN * std, mean - BROKEN * std)
    found = [
        replace(ordinary, images=picture, state=state.astype(np.float32), origin=f"{name} picture")
        for name, picture in odd_pictures(ordinary.images)
        for state in far
    ]
    found += [
        replace(ordinary, state=state.astype(np.float32), origin=name)
        for name, state in odd_states(truth, mean, std)
    ]
    parts = truth.config.chunks_per_plan
    return [replace(sample, part=i % parts) for i, sample in enumerate(found)]


def odd_pictures(seen: Images) -> Iterator[tuple[str, Images]]:
    """Flat, coloured, chequered, covered and blinded pictures, uint8 [V, h, w, 3]."""
    for name, value in (("black", 0), ("grey", 128), ("white", 255)):
        yield name, np.full_like(seen, value)
    for channel, name in enumerate(("red", "green", "blue")):
        one = np.zeros_like(seen)
        one[:, :, :, channel] = 255
        yield name, one
    rows, columns = np.indices(seen.shape[1:3])
    chequered = np.asarray((rows + columns) % 2 * 255, dtype=np.uint8)[None, :, :, None]
    yield "chequered", np.broadcast_to(chequered, seen.shape).copy()
    for camera in range(len(seen)):
        alone = np.zeros_like(seen)
        alone[camera] = seen[camera]
        yield f"camera {camera} alone", alone
        covered = seen.copy()
        covered[camera] = 0
        yield f"camera {camera} covered", covered
    height, width = seen.shape[1:3]
    for name, value in (("dark patch", 0), ("blinded patch", 255)):
        patched = seen.copy()
        patched[:, height // 4 : height // 2, width // 4 : width // 2] = value
        yield name, patched


def odd_states(truth: Checkpoint, mean: Floats, std: Floats) -> Iterator[tuple[str, Floats]]:
    """Each dimension alone far out, all of them, and the ends of what was recorded and beyond."""
    for dim in range(len(mean)):
        for far in (RARE, -RARE, BROKEN, -BROKEN):
            state = mean.copy()
            state[dim] += far * std[dim]
            yield f"state {dim} at {far:+g} standard deviations", state
    for far in (RARE, -RARE, BROKEN, -BROKEN):
        yield f"all states at {far:+g} standard deviations", mean + far * std
    recorded = truth.statistics[_STATE]
    if "min" not in recorded or "max" not in recorded:
        return
    low, high = (np.array(recorded[name], np.float32) for name in ("min", "max"))
    for share in (0.0, 0.25):
        yield f"{share:.0%} below what was recorded", low - share * (high - low)
        yield f"{share:.0%} above what was recorded", high + share * (high - low)
