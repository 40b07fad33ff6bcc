"""ONNX Runtime's shared library for a target, from the package its profile names.

For this machine's own package it is the installed one; for another architecture the wheel of the
same version is downloaded by pip, once, into the cache.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

from libra_edge.atomic import new_directory
from libra_edge.catalog import Target
from libra_edge.errors import LibraError
from libra_edge.runtime.build import onnxruntime_library, onnxruntime_version
from libra_edge.user_cache import cache_folder, make_writable

_TIMEOUT_S = 600


def fetch_onnxruntime(target: Target, cache: Path | None = None) -> Path:
    """The library `libonnxruntime.so.<version>` for a target, at the version installed here.

    Args:
        target: names the package and the wheel's platform.
        cache: where wheels are unpacked; None takes the user's cache folder.

    Raises:
        InputError: onnxruntime is not installed here.
        LibraError: the wheel cannot be downloaded.
    """
    installed = onnxruntime_library()
    wanted = target.onnxruntime
    if target.arch == f"{platform.machine()}-linux-gnu" and wanted.package == "onnxruntime":
        return installed
    version = onnxruntime_version(installed)
    root = cache or cache_folder("wheels")
    folder = root / f"{wanted.package}-{version}-{wanted.platform}"
    if not folder.is_dir():
        make_writable(root)
        with new_directory(folder) as partial:
            _download(wanted.package, version, wanted.platform, partial)
    return onnxruntime_library(folder / "onnxruntime")


def fetched_onnxruntime(version: str, cache: Path | None = None) -> list[Path]:
    """The libraries of a version that were fetched before, of every package and platform."""
    folders = sorted((cache or cache_folder("wheels")).glob(f"*-{version}-*"))
    return [onnxruntime_library(folder / "onnxruntime") for folder in folders]


def _download(package: str, version: str, wheel_platform: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    command += ["--only-binary=:all:", "--platform", wheel_platform]
    command += [f"--python-version={sys.version_info.major}.{sys.version_info.minor}"]
    try:
        run = subprocess.run(
            [*command, f"{package}=={version}"], capture_output=True, text=True, timeout=_TIMEOUT_S
        )
        failed = run.returncode != 0
        said = (run.stderr.strip().splitlines() or ["nothing came"])[-1]
    except subprocess.TimeoutExpired:
        failed, said = True, f"nothing came within {_TIMEOUT_S} s"
    wheels = sorted(folder.glob("*.whl"))
    if failed or len(wheels) != 1:
        raise LibraError(
            "onnxruntime-not-fetched",
            f"The wheel of {package} {version} for {wheel_platform} was not downloaded: {said}.",
            "Install pip into this environment (python -m ensurepip) and run the command again."
            if find_spec("pip") is None
            else "Connect to a package index once; the wheel is kept in the cache.",
        )
    # Only the libraries: a path in a wheel that leads elsewhere is passed over by name.
    with zipfile.ZipFile(wheels[0]) as archive:
        for info in archive.infolist():
            parts = Path(info.filename).parts
            if parts[:2] == ("onnxruntime", "capi") and len(parts) == 3 and ".so" in parts[2]:
                archive.extract(info, folder)
    wheels[0].unlink()
