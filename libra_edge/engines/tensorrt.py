"""TensorRT: engines built where the GPU is, on a Jetson when a release is installed.

Options of a target's entry: `version_compatible` ("true": later TensorRT of the same major version
loads the engine) and `hardware_compatibility` (`ampere_plus` or `same_compute_capability`).
"""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from libra_edge.catalog import Target, TargetEngine
from libra_edge.engines._tensorrt import TensorRtFamily
from libra_edge.errors import IncompatibleError, InputError
from libra_edge.user_cache import cache_folder, make_writable

ON_DEVICE = "Or leave the build to the robot with --engines-on-device."
_DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release"))
_TIMEOUT_S = 30


class TensorRtEngine(TensorRtFamily):
    """Engines of NVIDIA's TensorRT, from 10.3 (JetPack 6) on, for the GPU of this machine."""

    kind = "tensorrt"
    compiler = "tensorrt"
    options = ("version_compatible", "hardware_compatibility")
    environment = {"POLYGRAPHY_USE_TENSORRT_RTX": "0"}  # noqa: RUF012

    def tools(self) -> dict[str, str]:
        """See `Engine.tools`."""
        self.require_compiler(None)
        return {self.compiler: version("tensorrt")}

    def require_compiler(self, target: Target | None) -> None:
        """It needs its package and a GPU, of the target's compute capability."""
        if find_spec("tensorrt") is None:
            raise InputError(
                "tensorrt-missing",
                "TensorRT engines need the package tensorrt, which is not installed.",
                "Install TensorRT on a machine with the target's GPU; on a Jetson it is part of "
                f"JetPack. {ON_DEVICE}",
            )
        require_gpu("TensorRT", target)

    def request(self, settings: TargetEngine, target: Target) -> dict[str, Any]:
        """See `TensorRtFamily.request`; the timing cache is kept per TensorRT version."""
        folder = make_writable(cache_folder("tensorrt"))
        return {
            "compute_capability": None,
            "timing_cache": str(folder / f"{version('tensorrt')}.timing"),
            "version_compatible": settings.options.get("version_compatible") == "true",
            "hardware_compatibility": settings.options.get("hardware_compatibility"),
        }


ENGINE = TensorRtEngine()


def compute_capability() -> str | None:
    """Of this machine's first GPU, as its driver says; None where it does not say."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = run.stdout.split()
    return lines[0] if run.returncode == 0 and lines else None


def require_gpu(compiler: str, target: Target | None) -> None:
    """Refuse where there is no GPU, or, as far as the driver says, another than the target's.

    Raises:
        IncompatibleError: so it is.
    """
    if not any(path.exists() for path in _DRIVERS):
        raise IncompatibleError(
            "gpu-missing",
            f"{compiler} builds engines on the GPU they are for, and this machine has none.",
            f"Compile on a machine with one. {ON_DEVICE}",
        )
    if target is None:
        return
    found, wanted = compute_capability(), target.compute_capability
    if wanted is None or found not in (None, wanted):
        raise IncompatibleError(
            "compute-capability-mismatch",
            f"This machine's GPU has compute capability {found}, target {target.name!r} has "
            f"{wanted or 'no GPU'}; {compiler} builds for the GPU that it runs on.",
            f"Compile on a machine with the target's GPU. {ON_DEVICE}",
        )
