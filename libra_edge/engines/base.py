"""What every engine kind provides. The base classes own the checks, a kind owns the work."""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, final

from libra_edge.catalog import Number, Target, TargetEngine
from libra_edge.catalog.providers import PROVIDERS
from libra_edge.engines.session import Session, TensorSpec
from libra_edge.errors import IncompatibleError, InputError, did_you_mean

# Makes the `torch.export` program of a graph; this file does without PyTorch.
Program = Callable[[], Any]


def runs_here(arch: str) -> bool:
    """Whether this machine loads native code for `arch`, for example `x86_64-linux-gnu`."""
    return platform.system() == "Linux" and arch == f"{platform.machine()}-linux-gnu"


@dataclass(frozen=True)
class QdqForm:
    """How an engine kind wants quantised layers written in standard ONNX.

    unsigned_activations: uint8 with zero point 128 in place of int8 with 0; integer_bias: int32 in
    units of both scales; images_in_integers: the image stem too, on the camera's own bytes;
    flat: few operators around each product, `compiler.quantization.unbatched_blocks`; rest: the
    floats, `fp32` or `fp16`, of whatever a recipe that quantises does not round.
    """

    unsigned_activations: bool = False
    integer_bias: bool = False
    images_in_integers: bool = False
    flat: bool = False
    rest: Number = "fp32"


@dataclass(frozen=True)
class Compilation:
    """How a compiler made an engine, and what the engine needs of its device.

    compute_capability: what it was compiled for; weight_bytes: of the weights as it stores them;
    workspace_bytes: device memory for activations and scratch while it runs; duration_s,
    peak_memory_bytes: of the build on this machine; log: the compiler's own, in full.
    """

    compiler: str
    version: str
    compute_capability: str
    engine_bytes: int
    weight_bytes: int
    workspace_bytes: int
    duration_s: float
    peak_memory_bytes: int
    log: str


@dataclass(frozen=True)
class BuiltEngine:
    """What goes into a release: the ONNX file the runtime loads, and how to load it.

    graph: the plain ONNX graph it was made of, which a robot can build again; the same bytes as
    `content` where the engine is the graph. compilation: None where nothing was compiled.
    data, engine: the graph's weights and the compiled engine where they lie in files of their own.
    """

    kind: str
    provider: str
    session_options: Mapping[str, str]
    content: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    graph: bytes
    compilation: Compilation | None = None
    data: Path | None = None
    engine: Path | None = None


@dataclass(frozen=True)
class Product:
    """One matrix product or convolution with weights, as a built engine runs it.

    weight: the weight tensor's name in the graph; kernel: the engine's operator; precision: of
    its arithmetic; weight_bytes: as stored; runs: times per call of the engine.
    """

    weight: str
    kernel: str
    precision: str
    weight_bytes: int
    runs: int


class Engine(ABC):
    """One engine kind."""

    kind: ClassVar[str]
    qdq: ClassVar[QdqForm] = QdqForm()
    # Precisions, as `LayerPrecision` writes them, whose products run on weights as they are stored.
    kernels: ClassVar[frozenset[str]] = frozenset()
    # Whether it compiles the PyTorch program, in which the denoising steps are unrolled.
    from_program: ClassVar[bool] = False
    # Whether it builds from a graph whose weights lie in a file of their own: `build_from_files`.
    from_files: ClassVar[bool] = False
    # Options of the build that a target's profile may set.
    options: ClassVar[tuple[str, ...]] = ()

    @final
    def require_known_options(self, settings: TargetEngine, target: Target) -> None:
        """Refuse an option that the build would not read.

        Raises:
            InputError: the target's profile sets one.
        """
        for name in sorted(settings.options.keys() - set(self.options)):
            raise InputError(
                "engine-option-unknown",
                f"target {target.name!r}: engines of kind {self.kind} have no option {name!r}.",
                did_you_mean(name, self.options) if self.options else "Leave `options` out.",
            )

    def tools(self) -> dict[str, str]:
        """Name and version of what an engine's bytes depend on, besides the compiler's own tools.

        Raises:
            InputError: it is not installed.
        """
        return {}

    @final
    def is_available(self, provider: str) -> bool:
        """Whether this machine's ONNX Runtime has the provider, which may need a GPU's driver."""
        if find_spec("onnxruntime") is None:
            return False
        import onnxruntime

        if provider in PROVIDERS:
            from libra_edge.engines._plugin import is_there

            return is_there(PROVIDERS[provider])
        return provider in onnxruntime.get_available_providers()

    @abstractmethod
    def build(
        self,
        model: bytes,
        settings: TargetEngine,
        target: Target,
        program: Program | None = None,
    ) -> BuiltEngine:
        """Turn a checked ONNX graph into an engine for a target.

        Args:
            model: the graph.
            settings: the entry of `target.engines` to build for.
            target: the machine.
            program: makes the same graph in PyTorch, for kinds that start from one; None where
                there is no PyTorch.

        Raises:
            IncompatibleError: what the build needs is not on this machine, or the compiler does
                not take the graph.
        """

    def build_from_files(
        self, model: bytes, data: Path, engine: Path, settings: TargetEngine, target: Target
    ) -> BuiltEngine:
        """Like `build`, of a graph that no one ONNX file can hold; for kinds with `from_files`.

        Args:
            model: the graph without its large weights.
            data: their file, by the name that the graph has for it.
            engine: the file to write the engine to.
            settings: the entry of `target.engines` to build for.
            target: the machine.
        """
        raise TypeError(f"engines of kind {self.kind} are made of one ONNX file")

    def products(self, built: BuiltEngine) -> list[Product]:
        """What each product with weights runs in, from the built engine; empty if it cannot say."""
        return []

    @final
    def load(
        self,
        content: bytes,
        provider: str,
        session_options: Mapping[str, str],
        *,
        threads: int = 1,
        optimize: bool = True,
    ) -> Session:
        """Load an engine on this machine: engines of every kind are ONNX files.

        Args:
            content: the ONNX file.
            provider: the execution provider it was built for.
            session_options: ONNX Runtime configuration entries.
            threads: intra-op threads.
            optimize: False runs the graph as written, as a reference.

        Raises:
            IncompatibleError: this machine does not have the provider.
        """
        if not self.is_available(provider):
            raise IncompatibleError(
                "provider-unavailable",
                f"This machine has no {provider} for engines of kind {self.kind}.",
                "Load the engine on a machine of its target.",
            )
        from libra_edge.engines._plugin import open_plugin
        from libra_edge.engines.session import open_session

        if provider in PROVIDERS:
            return open_plugin(content, PROVIDERS[provider], session_options, threads)
        return open_session(content, provider, session_options, threads, optimize)
