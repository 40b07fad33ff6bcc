"""Engines of the TensorRT that a robot has: `trtexec` builds them, a library of ours runs them.

A Jetson comes with TensorRT, its tools and its headers; no package index has them for it. So the
library that drives it is compiled where it will run, against the version that is there. Nothing of
this needs more than the field install, TensorRT and a C++ compiler (JetPack's `tensorrt`,
`tensorrt-dev` and `g++`).

Source: `trtexec --help` of TensorRT 10.3 (JetPack 6.2) and its Developer Guide, "Command-Line
Programs".
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from libra_edge.binding.library import build_engines
from libra_edge.bundle.verify import Release
from libra_edge.errors import IncompatibleError
from libra_edge.runtime.build import SOURCE_ROOT

PROVIDER = "TensorrtExecutionProvider"
LIBRARY = "libra_trt.so"
SOURCES = SOURCE_ROOT / "tensorrt"
TRTEXEC = Path("/usr/src/tensorrt/bin/trtexec")
HEADERS = (
    Path("/usr/include/aarch64-linux-gnu"),
    Path("/usr/include/x86_64-linux-gnu"),
    Path("/usr/include"),
    Path("/usr/local/tensorrt/include"),
)
CUDA = Path("/usr/local/cuda")
_TIMEOUT_S = 3600.0
_SHOWN = 400


class TensorRt:
    """Builds with the machine's own TensorRT; the release's library then marks what is there.

    Args:
        options: of the build, as the release's manifest has them.

    Raises:
        IncompatibleError: this machine has no TensorRT, no headers of it, or no C++ compiler.
    """

    provider = PROVIDER

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = _flags(options)
        self._trtexec = _trtexec()
        self._headers = _headers()
        self._compiler = _compiler()

    def version(self) -> str:
        """Of TensorRT, by its header; it and the driver decide what an engine is."""
        digest = hashlib.sha256((self._headers / "NvInferVersion.h").read_bytes())
        for path in sorted(SOURCES.iterdir()):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def build(self, release: Release, folder: Path) -> None:
        """Engines, the library that runs them, and the mark of both."""
        for name in ("planner", "refiner"):
            if (member := f"engines/{name}.onnx") in release.manifest.members:
                self._engine(release.member(member), folder / f"{name}.engine")
        self._library(folder / LIBRARY)
        build_engines(release.path, folder)

    def _engine(self, graph: Path, engine: Path) -> None:
        # The graphs say themselves what is in 8, 16 and 32 bits.
        command = [str(self._trtexec), f"--onnx={graph}", f"--saveEngine={engine}"]
        command += ["--stronglyTyped", "--skipInference", *self._options]
        _run(command, "tensorrt-build-failed", f"trtexec does not build {graph.name}")
        if not engine.is_file():
            raise _failed("tensorrt-build-failed", f"trtexec wrote no engine of {graph.name}", "")

    def _library(self, out: Path) -> None:
        command = [self._compiler, "-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden"]
        command += [f"-I{SOURCES}", f"-I{self._headers}", f"-I{CUDA / 'include'}"]
        command += [f"-L{path}" for path in _library_folders(self._headers)]
        command += [str(SOURCES / "libra_trt.cc"), "-lnvinfer", "-o", str(out)]
        _run(
            command, "tensorrt-library-failed", "the library that drives TensorRT does not compile"
        )


def _flags(options: Mapping[str, str]) -> list[str]:
    flags = []
    if options.get("version_compatible") == "true":
        flags.append("--versionCompatible")
    match options.get("hardware_compatibility"):
        case "ampere_plus":
            flags.append("--hardwareCompatibilityLevel=ampere+")
        case "same_compute_capability":
            flags.append("--hardwareCompatibilityLevel=sameComputeCapability")
    return flags


def _trtexec() -> Path:
    found = shutil.which("trtexec")
    if found is not None:
        return Path(found)
    if TRTEXEC.is_file():
        return TRTEXEC
    raise IncompatibleError(
        "tensorrt-missing",
        f"This machine has no trtexec, which builds the engines: neither on PATH nor at {TRTEXEC}.",
        "Install TensorRT (on a Jetson: apt-get install tensorrt), or run the graphs on the CPU "
        "with --provider CPUExecutionProvider.",
    )


def _headers() -> Path:
    roots = [Path(root) for root in os.environ.get("CPATH", "").split(os.pathsep) if root]
    for folder in (*roots, *HEADERS):
        if (folder / "NvInfer.h").is_file() and (folder / "NvInferVersion.h").is_file():
            return folder
    raise IncompatibleError(
        "tensorrt-headers-missing",
        "This machine has TensorRT but not its headers (NvInfer.h), which the library that drives "
        "it is compiled against.",
        "Install them (on a Jetson: apt-get install libnvinfer-dev), or put their folder in CPATH.",
    )


def _compiler() -> str:
    for name in ("g++", "clang++"):
        if (found := shutil.which(name)) is not None:
            return found
    raise IncompatibleError(
        "compiler-missing",
        "The library that drives TensorRT is compiled on this machine, which has no C++ compiler.",
        "Install one (apt-get install g++).",
    )


def _library_folders(headers: Path) -> Sequence[Path]:
    """Where `libnvinfer.so` lies beside such headers."""
    beside = headers.parent / "lib"
    return [folder for folder in (beside, CUDA / "lib64") if folder.is_dir()]


def _run(command: Sequence[str], code: str, what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise _failed(code, f"{what} within {_TIMEOUT_S:.0f} s", "") from None
    if done.returncode != 0:
        raise _failed(code, what, (done.stdout + done.stderr).strip())


def _failed(code: str, what: str, said: str) -> IncompatibleError:
    words = " ".join(said.split())[-_SHOWN:]
    return IncompatibleError(
        code,
        f"{what[0].upper()}{what[1:]}{': ' + words if words else '.'}",
        "Nothing was made usable; compile the policy for the JetPack that this robot has.",
    )
