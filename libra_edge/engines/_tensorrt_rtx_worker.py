"""Builds one TensorRT-RTX engine in a process of its own.

A fresh process gives the same bytes for the same graph (names inside an engine are numbered per
process), its memory is returned, and a compiler that crashes takes nothing else down.

    python -m libra_edge.engines._tensorrt_rtx_worker FOLDER

FOLDER holds `graph.onnx` and `request.json`; it gets `engine`, `log` and `result.json`.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import tensorrt_rtx as trt


class _Log(trt.ILogger):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        """Called by the compiler, from its own threads too."""
        self.lines.append(f"{severity.name} {message}")


def build(folder: Path) -> dict[str, Any]:
    """Build what the folder's request asks for; returns what `result.json` gets."""
    request = json.loads((folder / "request.json").read_text())
    log = _Log()
    begin = time.perf_counter()
    try:
        error = _build(folder, request["compute_capability"], log)
    finally:
        (folder / "log").write_text("\n".join(log.lines) + "\n")
    return {
        "version": trt.__version__,
        "error": error,
        "duration_s": time.perf_counter() - begin,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _build(folder: Path, capability: str, log: _Log) -> str:
    """Write the engine; returns what was wrong, or nothing."""
    supported = trt.ComputeCapability.__members__
    if f"SM{capability}" not in supported:
        known = ", ".join(sorted(name for name in supported if name.startswith("SM")))
        return f"it does not build for SM{capability}, only for {known}"
    builder = trt.Builder(log)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(folder / "graph.onnx")):
        return "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(supported[f"SM{capability}"], 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        errors = [line for line in log.lines if line.startswith(("ERROR", "INTERNAL_ERROR"))]
        return errors[-1] if errors else "no engine came out"
    with (folder / "engine").open("wb") as stream:
        stream.write(engine)
    return ""


if __name__ == "__main__":
    target = Path(sys.argv[1])
    (target / "result.json").write_text(json.dumps(build(target)))
