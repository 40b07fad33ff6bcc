"""A GPU that any machine has: NVIDIA's driver and its provider for RTX GPUs, played by libraries.

`libcuda.so.1` answers what the environment says, the provider runs "engines" that are plain graphs
behind a header. The runtime that is tested is the one of releases, without a change: it takes them
for the real ones, since what a provider is called and where its files lie is all that it knows.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from libra_edge.atomic import new_directory
from libra_edge.catalog.providers import PROVIDERS
from libra_edge.engines._epcontext import graph_specs, wrap
from libra_edge.runtime import build
from tests.runtime import tiny_release as tiny
from tests.runtime.native_build import TARGET, zig

PROVIDER = PROVIDERS["NvTensorRTRTXExecutionProvider"]
HERE = Path(__file__).parent
VERSION = "1.7.1.116"
CAPABILITY = "8.9"
COUNTERS = ("copies_in", "copies_out", "allocations", "calls")
_CODES = {"8.6": 4, "8.9": 8, "12.0": 16}


def libraries() -> Path:
    """A folder with `provider/` and `driver/`, built once per state of the sources."""
    sources = sorted(HERE.glob("*.*"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    folder = build.default_cache_dir().parent / "tests" / f"fake-gpu-{digest}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with new_directory(folder) as partial:
            _build(partial)
    return folder


def _build(folder: Path) -> None:
    provider, driver = folder / "provider", folder / "driver"
    provider.mkdir()
    driver.mkdir()
    shared = [*TARGET, "-O1", "-fPIC", "-shared", "-s", "-fvisibility=hidden"]
    empty = folder / "empty.c"
    empty.touch()
    *needed, plugin = (file.name for file in PROVIDER.files)
    for name in needed:
        zig("cc", *shared, f"-Wl,-soname,{name}", str(empty), "-o", str(provider / name))
    zig(
        *("c++", "-std=c++20", *shared, str(HERE / "provider.cc"), f"-Wl,-soname,{plugin}"),
        *(f"-L{provider}", *(f"-l:{name}" for name in needed), "-o", str(provider / plugin)),
    )
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        source = str(HERE / "driver.c")
        zig("cc", *shared, f"-Wl,-soname,{name}", source, "-o", str(driver / name))


def engine(graph: bytes, *, capability: str = CAPABILITY, version: str = VERSION) -> bytes:
    """What TensorRT for RTX would have made of a graph: its header, and the graph."""
    header = bytearray(64)
    header[:4] = b"vtrt"
    struct.pack_into("<Q", header, 16, 64 + len(graph))
    header[24:27] = bytes(int(part) for part in version.split(".")[:3])
    struct.pack_into("<I", header, 32, _CODES[capability])
    return bytes(header) + graph


def engine_file(graph: bytes, content: bytes) -> bytes:
    """The ONNX file around an engine, as the compiler writes it."""
    import onnx

    model = onnx.ModelProto.FromString(graph)
    return wrap(
        content,
        *graph_specs(model),
        name=model.graph.name,
        provider=PROVIDER.name,
        hardware="89",
        sdk_version=VERSION,
    )


def manifest() -> dict[str, Any]:
    """That of the tiny release, for an RTX 4090."""
    content = tiny.manifest()
    for name, entry in content["engines"].items():
        size = len(engine((tiny.planner_onnx if name == "planner" else tiny.refiner_onnx)()))
        entry |= {
            "kind": PROVIDER.kind,
            "provider": PROVIDER.name,
            "member": f"engines/{name}.engine.onnx",
            "session_options": {},
            "compiled": {
                "compiler": "tensorrt-rtx",
                "version": VERSION,
                "compute_capability": CAPABILITY,
                "engine_bytes": size,
                "weight_bytes": 100,
                "workspace_bytes": 100,
            },
        }
    content["target"] = "rtx4090"
    content["device"] = {
        "compute_capability": CAPABILITY,
        "memory_bytes": 8 * 2**30,
        "versions": {"cuda": "13.0", "driver": "580"},
    }
    return content


def make_release(plain: Path, to: Path) -> Path:
    """A release for an RTX 4090 beside a plain one of the same policy."""
    release = tiny.link_release(plain, to)
    for name, graph in (("planner", tiny.planner_onnx()), ("refiner", tiny.refiner_onnx())):
        content = engine_file(graph, engine(graph))
        (release / f"engines/{name}.engine.onnx").write_bytes(content)
    shutil.copytree(libraries() / "provider", release / "provider")
    tiny.seal(release, manifest())
    return release


def run(
    code: str, arguments: Sequence[str], *, driver: bool = True, settings: Mapping[str, str] = {}
) -> Any:
    """What a program prints as JSON, in a process that sees the driver (or none)."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FAKE_GPU")}
    if driver:
        environment["LD_LIBRARY_PATH"] = str(libraries() / "driver")
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(
        command, env=environment | settings, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, (result.returncode, result.stderr[-3000:])
    return json.loads(result.stdout)


def new_counters(path: Path) -> dict[str, str]:
    """Settings with which the provider counts in a file."""
    path.write_bytes(bytes(4096))
    return {"FAKE_GPU_COUNTERS": str(path)}


def counted(path: Path) -> dict[str, int]:
    """What the provider has counted."""
    values = struct.unpack_from(f"<{len(COUNTERS)}Q", path.read_bytes())
    return dict(zip(COUNTERS, values, strict=True))
