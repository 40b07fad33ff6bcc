"""TensorRT for RTX: engines for RTX GPUs, compiled ahead of time on a machine without one.

Networks are strongly typed: precision comes from the graph (its Q/DQ and its types), never from a
flag. The compiler runs in a process of its own, see `_tensorrt_rtx_worker`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx

from libra_edge.catalog import Target, TargetEngine
from libra_edge.engines._epcontext import graph_specs, unwrap, wrap
from libra_edge.engines.base import (
    BuiltEngine,
    Compilation,
    Engine,
    Product,
    QdqForm,
    Session,
)
from libra_edge.errors import IncompatibleError, InputError

COMPILER = "tensorrt-rtx"
TIMEOUT_S = 3600
# What its log calls the formats of numbers.
_FORMATS = {
    "Float": "fp32",
    "Half": "fp16",
    "BFloat16": "bf16",
    "Int8": "int8",
    "FP8": "fp8",
    "Int4": "int4",
    "FP4": "nvfp4",
}
_TOTAL = r"^INFO Total {} Memory: (\d+) bytes$"


class TensorRtRtxEngine(Engine):
    """Engines of NVIDIA's TensorRT for RTX."""

    kind = "tensorrt_rtx"
    qdq = QdqForm()

    def is_available(self, provider: str) -> bool:
        """Whether this machine's ONNX Runtime has the provider, which needs the GPU's driver."""
        if find_spec("onnxruntime") is None:
            return False
        import onnxruntime

        return provider in onnxruntime.get_available_providers()

    def build(self, model: bytes, settings: TargetEngine, target: Target) -> BuiltEngine:
        """See `Engine.build`; needs the extra `rtx`, and no GPU."""
        if target.compute_capability is None:
            raise IncompatibleError(
                "target-without-gpu",
                f"Target {target.name!r} has no GPU to build a TensorRT-RTX engine for.",
                "Give the target a compute_capability, or another engine kind.",
            )
        graph = onnx.ModelProto.FromString(model)
        name = graph.graph.name
        engine, compilation = _compile(model, name, target.compute_capability)
        inputs, outputs = graph_specs(graph)
        content = wrap(
            engine,
            inputs,
            outputs,
            name=name,
            provider=settings.provider,
            hardware=_digits(target.compute_capability),
            sdk_version=compilation.version,
        )
        return BuiltEngine(
            self.kind,
            settings.provider,
            settings.session_options,
            content,
            inputs,
            outputs,
            graph=model,
            compilation=compilation,
        )

    def products(self, built: BuiltEngine) -> list[Product]:
        """Weights by the format the engine stores them in, from the compiler's log."""
        assert built.compilation is not None
        return [
            Product(weight, "engine", precision, size, 1)
            for weight, precision, size in stored_constants(built.compilation.log)
        ]

    def _load(
        self,
        content: bytes,
        provider: str,
        session_options: Mapping[str, str],
        threads: int,
        optimise: bool,
    ) -> Session:
        from libra_edge.engines.onnxruntime import ENGINE as ONNX_RUNTIME

        return ONNX_RUNTIME.load(
            content, provider, session_options, threads=threads, optimise=optimise
        )


ENGINE = TensorRtRtxEngine()


def engine_bytes(built: BuiltEngine) -> bytes:
    """The plain serialised engine, as TensorRT-RTX's own runtime takes it."""
    return unwrap(built.content)


def _digits(compute_capability: str) -> str:
    return compute_capability.replace(".", "")


def _compile(model: bytes, name: str, compute_capability: str) -> tuple[bytes, Compilation]:
    if find_spec("tensorrt_rtx") is None:
        raise InputError(
            "tensorrt-rtx-missing",
            "Engines for RTX GPUs need the package tensorrt-rtx, which is not installed.",
            "Install libra-edge[rtx]; it needs no GPU.",
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "graph.onnx").write_bytes(model)
        request = {"compute_capability": _digits(compute_capability)}
        (folder / "request.json").write_text(json.dumps(request))
        result = _run_worker(folder, name)
        log = (folder / "log").read_text().replace(str(folder), "")
        if result["error"]:
            raise IncompatibleError(
                "engine-not-built",
                f"TensorRT-RTX {result['version']} does not build the {name}: {result['error']}.",
                "Choose another recipe; `libra-edge targets show` lists the target's precisions.",
            )
        engine = (folder / "engine").read_bytes()
    return engine, Compilation(
        COMPILER,
        result["version"],
        compute_capability,
        len(engine),
        _total("Weights", log),
        _total("Activation", log),
        result["duration_s"],
        result["peak_memory_bytes"],
        log,
    )


def _run_worker(folder: Path, name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "libra_edge.engines._tensorrt_rtx_worker", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    if run.returncode != 0:
        last = (run.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        raise IncompatibleError(
            "engine-compiler-crashed",
            f"TensorRT-RTX ended with status {run.returncode} on the {name}: {last}.",
            "Try --form loop and a machine with more memory; status -9 is out of memory.",
        )
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def _total(what: str, log: str) -> int:
    found = re.search(_TOTAL.format(what), log, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"the compiler's log does not say the total of {what}")
    return int(found[1])


_LAYER = re.compile(r"^Name: .*?, LayerType: (?P<type>\w+), (?P<rest>.*)$", re.MULTILINE)
_CONSTANTS = re.compile(r"Constants: \[(?P<list>.*?)\], Outputs:")
_CONSTANT = re.compile(r"Name: (?P<name>.+?), Dimensions: \[(?P<dims>[\d,]*)\].*?Datatype: (?P<t>\w+)")
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


def stored_constants(log: str) -> Iterator[tuple[str, str, int]]:
    """(layers of the graph it serves, number format, elements) of every constant in the engine."""
    for layer in _LAYER.finditer(log):
        constants = _CONSTANTS.search(layer["rest"])
        if constants is None:
            continue
        onnx_layers = " ".join(_ONNX_LAYER.findall(layer["rest"]))
        for constant in _CONSTANT.finditer(constants["list"]):
            elements = 1
            for dim in filter(None, constant["dims"].split(",")):
                elements *= int(dim)
            yield onnx_layers, _FORMATS.get(constant["t"], constant["t"]), elements
