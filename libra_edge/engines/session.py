"""A loaded engine: what it takes and gives, and ONNX Runtime's, which every kind is loaded by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnxruntime as ort

Array = npt.NDArray[Any]
_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
}
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class TensorSpec:
    """Name, NumPy dtype name and static shape of one input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Session(ABC):
    """A loaded engine.

    Args:
        inputs: what `run` takes.
        outputs: what `run` gives.
    """

    def __init__(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self.inputs = inputs
        self.outputs = outputs

    @final
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once on exactly the declared inputs.

        Raises:
            ValueError: an input or output has another name, dtype or shape than declared.
        """
        _check("input", self.inputs, feeds)
        results = self._run({name: np.ascontiguousarray(value) for name, value in feeds.items()})
        _check("output", self.outputs, results)
        return results

    @abstractmethod
    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """Run on contiguous arrays that fit the specification."""


class OnnxRuntimeSession(Session):
    """An ONNX Runtime session with static shapes."""

    def __init__(self, session: ort.InferenceSession) -> None:
        super().__init__(_specs(session.get_inputs()), _specs(session.get_outputs()))
        self._session = session
        self._names = [spec.name for spec in self.outputs]

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(self._names, self._session.run(self._names, feeds), strict=True))


class EnginePair:
    """The sessions of a policy, as `libra_edge.policy.executor.Engines`.

    Args:
        planner: None where the policy has none.
        refiner: or the one engine.
    """

    def __init__(self, planner: Session | None, refiner: Session) -> None:
        self._planner = planner
        self._refiner = refiner

    def plan(self, images: Array, instruction: Array, state: Array) -> tuple[Array, Array]:
        """See `libra_edge.policy.executor.Engines.plan`."""
        if self._planner is None:
            nothing = (0, self._refiner.outputs[0].shape[1])
            return np.empty(nothing, np.int32), np.empty(nothing, np.float32)
        result = self._planner.run({"images": images, "instruction": instruction, "state": state})
        return result["intent"], result["margin"]

    def refine(
        self,
        images: Array,
        state: Array,
        intent: Array,
        noise: Array,
        instruction: Array | None = None,
    ) -> Array:
        """See `libra_edge.policy.executor.Engines.refine`."""
        feeds = {"images": images, "state": state, "intent": intent, "noise": noise}
        if instruction is not None:
            feeds["instruction"] = instruction
        if self._planner is None:
            taken = {spec.name for spec in self._refiner.inputs}
            feeds = {name: value for name, value in feeds.items() if name in taken}
        else:
            feeds.pop("instruction", None)
        return self._refiner.run(feeds)["actions"]


def open_session(
    content: bytes,
    provider: str,
    session_options: Mapping[str, str],
    threads: int,
    optimize: bool,
) -> Session:
    """An ONNX file on a provider that is here; see `Engine.load`."""
    import onnxruntime as ort

    options = options_of(session_options, threads)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return OnnxRuntimeSession(ort.InferenceSession(content, options, providers=[provider]))


def open_graph(path: Path) -> Session:
    """A graph whose weights lie in a file beside it, as written, on the CPU."""
    import onnxruntime as ort

    options = options_of({}, 1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return OnnxRuntimeSession(
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    )


def options_of(session_options: Mapping[str, str], threads: int) -> ort.SessionOptions:
    """ONNX Runtime's own form of configuration entries."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    for key, value in session_options.items():
        options.add_session_config_entry(key, value)
    return options


def _check(what: str, specs: tuple[TensorSpec, ...], arrays: Mapping[str, Array]) -> None:
    declared = {spec.name: (np.dtype(spec.dtype), spec.shape) for spec in specs}
    found = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    if declared == found:
        return
    name = min(n for n in declared.keys() | found.keys() if declared.get(n) != found.get(n))
    raise ValueError(f"{what} {name}: {declared.get(name)} declared, {found.get(name)} given")


def _specs(arguments: list[ort.NodeArg]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(a.name, _DTYPES[a.type], tuple(a.shape)) for a in arguments)
