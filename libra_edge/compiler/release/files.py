"""The files of a release: engines, native libraries and golden vectors under their fixed names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from libra_edge.bundle.members import AGENT, LIBRARY
from libra_edge.catalog.providers import PROVIDERS
from libra_edge.compiler.engines.build import Built
from libra_edge.compiler.graphs.make_graphs import OnStage
from libra_edge.compiler.request import Job
from libra_edge.engines._plugin import files_of
from libra_edge.runtime.build import HEADER
from libra_edge.runtime.fetch import fetch_onnxruntime
from libra_edge.runtime.libraries import library_cache, native_agent, native_library


def release_members(
    job: Job, built: Built, golden: Mapping[str, bytes], on_stage: OnStage
) -> dict[str, Path | bytes]:
    """Every member of the release but its manifest."""
    pair = built.by_name
    words = job.checkpoint.tokenizer
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
        **({"tokenizer.json": words.text.encode()} if words else {}),
        **{f"engines/{name}.onnx": one.graph for name, one in pair.items()},
        LIBRARY: _native(native_library, job, on_stage),
        AGENT: _native(native_agent, job, on_stage),
        "lib/libonnxruntime.so": fetch_onnxruntime(job.target),
        "include/libra_edge.h": HEADER.read_bytes(),
        **_provider_files(built),
        **golden,
    }


def _provider_files(built: Built) -> dict[str, Path]:
    """Of what runs the engines, here or once the robot has built them."""
    wanted = PROVIDERS.get(built.plan.wanted.provider)
    return {} if wanted is None else files_of(wanted)


def _native(made: Callable[..., bytes], job: Job, on_stage: OnStage) -> bytes:
    """From the wheel or the cache, or compiled now, with a word on why that takes a while."""
    arch = job.target.arch
    on_stage("runtime", f"native code for {arch}")

    def on_progress(done: int, total: int, what: str) -> None:
        on_stage("runtime", f"compiling C++ for {arch}, once per machine, {done} of {total} pieces")

    cache = library_cache(job.cache.root)
    return made(arch, job.target.glibc, cache=cache, on_progress=on_progress)
