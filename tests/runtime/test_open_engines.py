"""A release whose graphs or ONNX Runtime are not what they should be never opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from libra_edge.binding import abi
from tests.runtime import tiny_release as tiny
from tests.runtime.test_release import try_open

Copy = Callable[[], Path]


def test_an_engine_with_another_signature(copy: Copy, library: Path) -> None:
    release = copy()
    shapes = {**tiny.REFINER_INPUTS, "noise": ("float32", [1, tiny.D])}
    without = {k: v for k, v in tiny.REFINER_INPUTS.items() if k != "noise"}
    renamed = {**without, "noises": tiny.REFINER_INPUTS["noise"]}
    dynamic = {**tiny.REFINER_INPUTS, "state": ("float32", ["p"])}
    extra = {**tiny.REFINER_INPUTS, "more": ("float32", [1])}
    for inputs, text in (
        (shapes, "noise float32 [1, 4]"),
        (dynamic, "state float32 [-1]"),
        (extra, "5 inputs"),
        (renamed, None),
    ):
        try:
            graph = tiny.refiner_onnx(inputs)
        except Exception:  # the checker refuses what lacks an input it uses
            assert inputs is renamed
            continue
        tiny.replace(release / "engines/refiner.onnx", graph)
        tiny.seal(release, tiny.manifest())
        status, found = try_open(release, library)
        assert status == abi.ENGINE
        assert text is not None
        assert text in found


def test_an_engine_that_is_no_graph(copy: Copy, library: Path) -> None:
    release = copy()
    for content in (b"", b"not a graph", (release / "engines/planner.onnx").read_bytes()[:-100]):
        tiny.replace(release / "engines/planner.onnx", content)
        tiny.seal(release, tiny.manifest())
        status, text = try_open(release, library)
        assert status == abi.ENGINE
        assert text.startswith("engines/planner.onnx: ")


def test_an_onnxruntime_that_is_none(copy: Copy, library: Path) -> None:
    release = copy()
    for content in (b"", library.read_bytes()):
        tiny.replace(release / "lib/libonnxruntime.so", content)
        tiny.seal(release, tiny.manifest())
        assert try_open(release, library)[0] == abi.ENGINE
