"""The files of a release: engines, native libraries and golden vectors under their fixed names."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.engines.build import Built
from libra_edge.compiler.request import Job
from libra_edge.policy.checkpoint import TOKENIZER
from libra_edge.runtime.build import HEADER, build_library, source_hash
from libra_edge.runtime.fetch import fetch_onnxruntime


def release_members(job: Job, built: Built, golden: Mapping[str, bytes]) -> dict[str, Path | bytes]:
    """Every member of the release but its manifest."""
    pair = {"planner": built.planner, "refiner": built.refiner}
    compiled = {
        f"engines/{name}.engine.onnx": one.content
        for name, one in pair.items()
        if one.compilation is not None
    }
    apart = {
        f"engines/{name}.{suffix}": path
        for name, one in pair.items()
        for suffix, path in (("data", one.data), ("engine", one.engine))
        if path is not None
    }
    return {
        **compiled,
        **apart,
        "tokenizer.json": (job.checkpoint.path / TOKENIZER).read_bytes(),
        "engines/planner.onnx": built.planner.graph,
        "engines/refiner.onnx": built.refiner.graph,
        "lib/liblibra_edge.so": native_library(job.target.arch, job.target.glibc, job.cache),
        "lib/libonnxruntime.so": fetch_onnxruntime(job.target),
        "include/libra_edge.h": HEADER.read_bytes(),
        **golden,
    }


def native_library(arch: str, glibc: str, cache: StageCache) -> bytes:
    """`liblibra_edge.so` for an architecture and the oldest C library it has to load on.

    Raises:
        LibraError: it cannot be built.
    """

    def build() -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            library = build_library(Path(folder), arch, glibc)
            return {"library": library.read_bytes()}

    inputs = {
        "sources": source_hash(),
        "compiler": version("ziglang"),
        "arch": arch,
        "glibc": glibc,
    }
    return cache.get_or_make("runtime", inputs, build)[0]["library"]
