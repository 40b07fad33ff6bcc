"""The files of a release: engines, native libraries and golden vectors under their fixed names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.engines.build import Built
from libra_edge.compiler.graphs.make_graphs import OnStage
from libra_edge.compiler.request import Job
from libra_edge.errors import InputError
from libra_edge.policy.checkpoint import TOKENIZER
from libra_edge.runtime.build import HEADER
from libra_edge.runtime.fetch import fetch_onnxruntime
from libra_edge.runtime.libraries import native_library
from libra_edge.user_cache import cache_folder, make_writable


def release_members(
    job: Job, built: Built, golden: Mapping[str, bytes], on_stage: OnStage
) -> dict[str, Path | bytes]:
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
        "lib/liblibra_edge.so": library_for(job.target.arch, job.target.glibc, job.cache, on_stage),
        "lib/libonnxruntime.so": fetch_onnxruntime(job.target),
        "include/libra_edge.h": HEADER.read_bytes(),
        **golden,
    }


def library_for(arch: str, glibc: str, stages: StageCache, on_stage: OnStage) -> bytes:
    """`liblibra_edge.so`: from the wheel or the cache, or compiled now.

    Args:
        arch: of the target.
        glibc: oldest C library it has to load on.
        stages: where it is kept if the user's own cache cannot be written to.
        on_stage: told why that takes a while.

    Raises:
        LibraError: it cannot be built.
    """
    on_stage("runtime", f"native code for {arch}")

    def on_progress(done: int, total: int, what: str) -> None:
        on_stage("runtime", f"compiling C++ for {arch}, once per machine, {done} of {total} pieces")

    # The user's own cache serves every compilation; --cache, where there is no other.
    try:
        cache = make_writable(cache_folder("native"))
    except InputError:
        cache = make_writable(stages.root / "native", "--cache")
    return native_library(arch, glibc, cache=cache, on_progress=on_progress)
