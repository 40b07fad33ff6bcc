"""TensorRT for RTX: engines for RTX GPUs, compiled ahead of time on a machine without one."""

from __future__ import annotations

import re
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from libra_edge.bundle.engine_files.rtx import COMPILER, property_name
from libra_edge.catalog import Target, TargetEngine
from libra_edge.engines._epcontext import digits, unwrap
from libra_edge.engines._tensorrt import TensorRtFamily
from libra_edge.engines.base import BuiltEngine
from libra_edge.errors import InputError

_SOURCE = re.compile(rb"[\t\n\r -~]{1000,}")


class TensorRtRtxEngine(TensorRtFamily):
    """Engines of NVIDIA's TensorRT for RTX, for one compute capability."""

    kind = "tensorrt_rtx"
    compiler = COMPILER
    environment = {"POLYGRAPHY_USE_TENSORRT_RTX": "1"}  # noqa: RUF012

    def tools(self) -> dict[str, str]:
        """See `Engine.tools`."""
        self.require_compiler(None)
        return {self.compiler: version("tensorrt-rtx")}

    def require_compiler(self, target: Target | None) -> None:
        """It needs its package, and no GPU."""
        if find_spec("tensorrt_rtx") is None:
            raise InputError(
                "tensorrt-rtx-missing",
                "Engines for RTX GPUs need the package tensorrt-rtx, which is not installed.",
                "Install libra-edge[rtx]; it needs no GPU. Or leave the build to the robot with "
                "--engines-on-device.",
            )

    def metadata(self, head: bytes, settings: TargetEngine) -> dict[str, str]:
        """By which ONNX Runtime refuses an engine before the provider deserialises it."""
        return {property_name(settings.provider): head.hex()}

    def request(self, settings: TargetEngine, target: Target) -> dict[str, Any]:
        """See `TensorRtFamily.request`; there are no options."""
        assert target.compute_capability is not None
        return {
            "compute_capability": digits(target.compute_capability),
            "timing_cache": None,
            "version_compatible": False,
            "hardware_compatibility": None,
        }


ENGINE = TensorRtRtxEngine()


def engine_bytes(built: BuiltEngine) -> bytes:
    """The plain serialised engine, as TensorRT-RTX's own runtime takes it."""
    return unwrap(built.content)


def kernel_source_bytes(engine: bytes) -> int:
    """What a serialised engine stores as text: CUDA sources of its fused kernels, and the plan.

    The robot's driver compiles them. Each has the same 130 kB of conversions between number formats
    before it (docs/decisions/0044).
    """
    return sum(len(text) for text in _SOURCE.findall(engine))
