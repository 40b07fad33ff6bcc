"""What TensorRT and TensorRT for RTX have in common: one API, one worker, one kind of log.

Networks are strongly typed: precision comes from the graph (its Q/DQ and its types), never from a
flag, so that no layer is rounded in silence.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, final

import onnx

from libra_edge.bundle.engine_files.wrapper import HEAD_BYTES, read_head
from libra_edge.catalog import Target, TargetEngine
from libra_edge.engines._epcontext import built_engine
from libra_edge.engines._log_layers import engine_layers, products_of
from libra_edge.engines.base import BuiltEngine, Compilation, Engine, Product, Program, QdqForm
from libra_edge.errors import IncompatibleError

TIMEOUT_S = 3600
RESULT = "engine"  # what the worker calls it
_TOTAL = r"Total {} Memory: (\d+) bytes"


class TensorRtFamily(Engine):
    """Engines that a TensorRT compiler makes of a graph, wrapped for ONNX Runtime."""

    # Attention, normalisation and what a recipe keeps: tensor cores multiply 16 bits, not 32.
    qdq = QdqForm(rest="fp16")
    # 4-bit weights are turned into floats before the denoising loop (docs/decisions/0042).
    kernels = frozenset({"int8", "fp8"})
    from_files = True
    compiler: ClassVar[str]
    # Polygraphy's name for the choice between the two.
    environment: ClassVar[Mapping[str, str]]

    @abstractmethod
    def require_compiler(self, target: Target | None) -> None:
        """Refuse where the compiler, or what it needs to build for `target`, is not here."""

    @abstractmethod
    def request(self, settings: TargetEngine, target: Target) -> dict[str, Any]:
        """What the worker gets; see `_tensorrt_worker`."""

    def metadata(self, head: bytes, settings: TargetEngine) -> dict[str, str]:
        """Properties of the file around an engine that begins with these bytes."""
        return {}

    @final
    def build(
        self,
        model: bytes,
        settings: TargetEngine,
        target: Target,
        program: Program | None = None,
    ) -> BuiltEngine:
        """See `Engine.build`."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            compilation = self._compile(model, folder, settings, target)
            engine = (folder / RESULT).read_bytes()
            told = self.metadata(engine[:HEAD_BYTES], settings)
            return built_engine(self.kind, model, engine, compilation, settings, metadata=told)

    @final
    def build_from_files(
        self, model: bytes, data: Path, engine: Path, settings: TargetEngine, target: Target
    ) -> BuiltEngine:
        """See `Engine.build_from_files`."""
        with tempfile.TemporaryDirectory(dir=engine.parent) as scratch:
            folder = Path(scratch)
            (folder / data.name).symlink_to(data.resolve())
            compilation = self._compile(model, folder, settings, target)
            (folder / RESULT).rename(engine)
        told = self.metadata(read_head(engine)[0], settings)
        built = built_engine(self.kind, model, engine.name, compilation, settings, metadata=told)
        return replace(built, data=data, engine=engine)

    def products(self, built: BuiltEngine) -> list[Product]:
        """From the list of layers in the compiler's log, by the weights they serve."""
        assert built.compilation is not None
        weights = products_of(onnx.ModelProto.FromString(built.graph).graph)
        found = []
        for layer in engine_layers(built.compilation.log):
            for node in layer.nodes:
                if node not in weights or not layer.multiplies or not layer.constants:
                    continue
                weight, runs = weights[node]
                stored = max(layer.constants, key=lambda constant: constant.size_bytes)
                precision = _precision(stored.format, layer.input_format or stored.format)
                found.append(Product(weight, layer.type, precision, stored.size_bytes, runs))
        return found

    def _compile(
        self, model: bytes, folder: Path, settings: TargetEngine, target: Target
    ) -> Compilation:
        """Leave the engine in the folder."""
        if target.compute_capability is None:
            raise IncompatibleError(
                "target-without-gpu",
                f"Target {target.name!r} has no GPU to build a {self.compiler} engine for.",
                "Give the target a compute_capability, or another engine kind.",
            )
        self.require_compiler(target)
        name = onnx.ModelProto.FromString(model).graph.name
        (folder / "graph.onnx").write_bytes(model)
        (folder / "request.json").write_text(json.dumps(self.request(settings, target)))
        result = self._run_worker(folder, name)
        log = (folder / "log").read_text().replace(str(folder), "")
        if result["error"]:
            raise IncompatibleError(
                "engine-not-built",
                f"{self.compiler} {result['version']} does not build the {name} for compute "
                f"capability {target.compute_capability}: {result['error']}.",
                "Choose another recipe; `libra-edge targets show` lists the precisions.",
            )
        return Compilation(
            self.compiler,
            result["version"],
            target.compute_capability,
            (folder / RESULT).stat().st_size,
            _total("Weights", log),
            _total("Activation", log),
            result["duration_s"],
            result["peak_memory_bytes"],
            log,
        )

    def _run_worker(self, folder: Path, name: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "libra_edge.engines._tensorrt_worker", str(folder)]
        environment = {**os.environ, **self.environment}
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment
        )
        if run.returncode != 0:
            last = (run.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
            raise IncompatibleError(
                "engine-compiler-crashed",
                f"{self.compiler} ended with status {run.returncode} on the {name}: {last}.",
                "Status -9 is out of memory: build on a larger machine, or with fewer bits.",
            )
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        return result


def _precision(weights: str, activations: str) -> str:
    """As `libra_edge.catalog.LayerPrecision` writes it."""
    if weights == activations or weights not in ("int4", "int8", "fp8", "nvfp4"):
        return activations
    return f"{weights} weights, {activations} activations"


def _total(what: str, log: str) -> int:
    found = re.search(_TOTAL.format(what), log)
    if found is None:
        raise RuntimeError(f"the compiler's log does not say the total of {what}")
    return int(found[1])
