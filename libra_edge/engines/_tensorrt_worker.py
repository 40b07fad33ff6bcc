"""Builds one TensorRT or TensorRT-RTX engine, through Polygraphy, in a process of its own.

A fresh process gives the same bytes for the same graph (names inside an engine are numbered per
process), its memory is returned, and a compiler that crashes takes nothing else down.

    python -m libra_edge.engines._tensorrt_worker FOLDER

FOLDER holds `graph.onnx` and `request.json`; it gets `log`, `result.json` and, if it went well,
`engine`. Which of the two compilers is used, Polygraphy reads from POLYGRAPHY_USE_TENSORRT_RTX.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import polygraphy.backend.trt as polygraphy
from polygraphy import mod
from polygraphy.backend.trt import util
from polygraphy.exception import PolygraphyException

MOST_CHARACTERS = 600
trt = mod.lazy_import("tensorrt_rtx" if util.config.USE_TENSORRT_RTX else "tensorrt")


def build(folder: Path) -> dict[str, Any]:
    """Build what the folder's request asks for; returns what `result.json` gets."""
    request = json.loads((folder / "request.json").read_text())
    lines: list[str] = []
    # Polygraphy filters and reshapes the compiler's log; ours is to be whole.
    util.TRT_LOGGER = _logger(lines)
    begin = time.perf_counter()
    try:
        error = _build(folder, request, lines)
    except PolygraphyException as problem:
        error = _last_error(lines) or str(problem)
    finally:
        (folder / "log").write_text("\n".join(lines) + "\n")
    return {
        "version": trt.__version__,
        "error": error,
        "duration_s": time.perf_counter() - begin,
        "peak_memory_bytes": _peak_bytes(),
    }


def _logger(lines: list[str]) -> Any:
    base: Any = trt.ILogger

    class Log(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            lines.append(f"{severity.name} {message}")

    return Log()


def _build(folder: Path, request: dict[str, Any], lines: list[str]) -> str:
    """Write the engine; returns what was wrong, or nothing."""
    capability = request["compute_capability"]
    if capability is not None and f"SM{capability}" not in trt.ComputeCapability.__members__:
        known = (name for name in trt.ComputeCapability.__members__ if name.startswith("SM"))
        return f"it does not build for SM{capability}, only for {', '.join(sorted(known))}"
    network = polygraphy.NetworkFromOnnxPath(str(folder / "graph.onnx"), strongly_typed=True)

    def ahead_of_time(builder: Any, network: Any, config: Any) -> None:
        if capability is not None:
            config.num_compute_capabilities = 1
            config.set_compute_capability(trt.ComputeCapability.__members__[f"SM{capability}"], 0)

    cache = request["timing_cache"]
    config = polygraphy.CreateConfig(
        profiling_verbosity=trt.ProfilingVerbosity.DETAILED,
        load_timing_cache=cache if cache and Path(cache).exists() else None,
        version_compatible=request["version_compatible"] or None,
        hardware_compatibility_level=_level(request["hardware_compatibility"]),
    )
    engine = polygraphy.engine_bytes_from_network(
        network, polygraphy.PostprocessConfig(config, ahead_of_time), save_timing_cache=cache
    )
    if engine is None:
        return _last_error(lines) or "no engine came out"
    with (folder / "engine").open("wb") as stream:
        stream.write(engine)
    return ""


def _peak_bytes() -> int:
    """Of this program alone: `getrusage` starts from what the parent had when it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def _level(name: str | None) -> Any:
    return None if name is None else trt.HardwareCompatibilityLevel.__members__[name.upper()]


def _last_error(lines: list[str]) -> str:
    errors = [line for line in lines if line.startswith(("ERROR", "INTERNAL_ERROR"))]
    told = [" ".join(line.split()) for line in errors if "---" not in line]
    return "; ".join(told)[:MOST_CHARACTERS]


if __name__ == "__main__":
    target = Path(sys.argv[1])
    (target / "result.json").write_text(json.dumps(build(target)))
