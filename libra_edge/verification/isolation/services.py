"""What a child offers: the release through the C ABI, its engines, its graphs, single models.

Each method takes arrays and plain arguments, and gives a plain dictionary and arrays.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from libra_edge.binding.policy import Policy
from libra_edge.bundle.manifest import parse_manifest
from libra_edge.bundle.members import MANIFEST
from libra_edge.bundle.verify import Release
from libra_edge.data.types import Observation
from libra_edge.engines import engine
from libra_edge.errors import InputError, LibraError
from libra_edge.policy.executor import Engines
from libra_edge.verification.isolation.child import crashed
from libra_edge.verification.isolation.messages import Array
from libra_edge.verification.open_engines import load_engines, load_graphs

Answer = tuple[dict[str, Any], list[Array]]


class EnginesService:
    """Planner and refiner.

    Args:
        release: the release's directory; its bytes have been verified.
        written: run the plain graphs as they are written, not the engines.
    """

    def __init__(self, release: str, written: bool = False) -> None:
        path = Path(release)
        whole = Release(path, parse_manifest((path / MANIFEST).read_bytes()))
        loaded = load_graphs(whole) if written else load_engines(whole)
        if loaded is None:
            raise RuntimeError("there is nothing to run it with")
        self._engines: Engines = loaded

    def plan(self, images: Array, instruction: Array, state: Array) -> Answer:
        """Intent and margin."""
        return {}, list(self._engines.plan(images, instruction, state))

    def refine(
        self,
        images: Array,
        state: Array,
        intent: Array,
        noise: Array,
        instruction: Array | None = None,
    ) -> Answer:
        """Actions."""
        return {}, [self._engines.refine(images, state, intent, noise, instruction)]

    def time_calls(
        self, images: Array, instruction: Array, state: Array, intent: Array, noise: Array
    ) -> Answer:
        """Milliseconds of one call of each, without the way to this process and back."""
        begin = time.perf_counter()
        self._engines.plan(images, instruction, state)
        middle = time.perf_counter()
        self._engines.refine(images, state, intent, noise, instruction)
        end = time.perf_counter()
        return {"planner": (middle - begin) * 1e3, "refiner": (end - middle) * 1e3}, []


class RuntimeService(EnginesService):
    """The release through the C ABI, whatever it says of itself: that is under test."""

    def __init__(self, release: str, engines: str | None = None) -> None:
        self._policy = Policy(
            Path(release), allow_failed=True, allow_random_weights=True, engines_dir=engines
        )
        self._engines = self._policy

    def restart(self, seed: str) -> Answer:
        """Start an episode; the seed in digits, as JSON's numbers are too short for some."""
        self._policy.restart(int(seed))
        return {}, []

    def set_instruction(self, tokens: Array) -> Answer:
        """Say what to do."""
        self._policy.set_instruction(tokens)
        return {}, []

    def observe(self, images: Array, state: Array) -> Answer:
        """Hand over an observation."""
        self._policy.observe(images, state)
        return {}, []

    def step(self) -> Answer:
        """One control step: the action, and what happened."""
        action, info = self._policy.step()
        told = {
            "state": int(info.state),
            "planner_ran": bool(info.planner_ran),
            "refiner_ran": bool(info.refiner_ran),
        }
        return told, [action]


class DriverService:
    """The release as what drives a robot in a simulator, whatever it says of itself."""

    def __init__(self, release: str) -> None:
        self._policy = Policy(Path(release), allow_failed=True, allow_random_weights=True)

    def reset(self, seed: str, instruction: str) -> Answer:
        """Begin an episode; the seed in digits."""
        self._policy.reset(int(seed), instruction)
        return {}, []

    def act(self, images: Array, state: Array, instruction: str) -> Answer:
        """The action of one control step."""
        try:
            return {}, [self._policy.act(Observation(images, state, instruction))]
        except InputError:
            raise
        except LibraError as error:
            # A release that holds or faults where the checkpoint goes on has failed, like one that
            # takes its process down.
            raise crashed(error.fact, "an episode") from None


class ModelService:
    """One ONNX model; its content is the first message, not an argument."""

    def load(
        self, content: Array, provider: str, session_options: dict[str, str], optimize: bool
    ) -> Answer:
        """Open it with ONNX Runtime; the names of its inputs and outputs."""
        self._session = engine("onnxruntime").load(
            content.tobytes(), provider, session_options, optimize=optimize
        )
        return {"inputs": [spec.name for spec in self._session.inputs]}, []

    def run(self, *arrays: Array, names: list[str]) -> Answer:
        """One run: outputs by name."""
        found = self._session.run(dict(zip(names, arrays, strict=True)))
        return {"names": list(found)}, [np.asarray(array) for array in found.values()]
