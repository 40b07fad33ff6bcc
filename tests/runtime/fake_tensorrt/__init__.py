"""A TensorRT that any machine has: header, library, `trtexec`, for the one of a Jetson.

What is tested is the product's own: the library that it compiles against these headers, the runtime
that drives it through the C function table, and `provision`. The engines are plain graphs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from libra_edge.atomic import new_directory
from libra_edge.runtime import build
from tests.runtime import fake_gpu
from tests.runtime.native_build import TARGET, zig

HERE = Path(__file__).parent


def installation() -> Path:
    """A folder with `bin`, `include` and `lib`, built once per state of the sources."""
    sources = sorted(path for path in HERE.rglob("*") if path.suffix in (".h", ".cc"))
    sources.append(fake_gpu.HERE / "ep_api.h")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    folder = build.default_cache_dir().parent / "tests" / f"fake-tensorrt-{digest}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with new_directory(folder) as partial:
            shutil.copytree(HERE / "include", partial / "include")
            (partial / "bin").mkdir()
            (partial / "lib").mkdir()
            shutil.copy(HERE / "trtexec", partial / "bin")
            zig(
                *("c++", "-std=c++20", *TARGET, "-O1", "-fPIC", "-shared", "-s"),
                *("-fvisibility=hidden", "-Wl,-soname,libnvinfer.so.10"),
                *(f"-I{HERE / 'include'}", f"-I{fake_gpu.HERE}", str(HERE / "nvinfer.cc")),
                *("-o", str(partial / "lib/libnvinfer.so")),
            )
            (partial / "lib/libnvinfer.so.10").symlink_to("libnvinfer.so")
    return folder


def settings() -> dict[str, str]:
    """Of a process on a machine that has it, and NVIDIA's driver."""
    here = installation()
    libraries = [str(fake_gpu.libraries() / "driver"), str(here / "lib")]
    return {
        "PATH": os.pathsep.join([str(here / "bin"), os.environ["PATH"]]),
        "CPATH": str(here / "include"),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "FAKE_TRT_ORT": str(build.onnxruntime_library()),
        "FAKE_GPU_CC": "8.7",
        "FAKE_GPU_DRIVER": "",
        "FAKE_GPU_CUDA": "12060",
        "FAKE_GPU_MEMORY_GIB": "64",
    }
