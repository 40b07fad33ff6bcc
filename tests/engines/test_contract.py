"""What every engine kind promises, whether its compiler is on this machine or not."""

from __future__ import annotations

import inspect
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.export import ExportedProgram

from libra_edge.catalog import Target, TargetEngine, list_targets, load_target
from libra_edge.engines import engine, kinds, tensorrt
from libra_edge.engines.base import BuiltEngine, Engine, QdqForm
from libra_edge.errors import IncompatibleError, InputError, LibraError

PAIRS = [
    (target.name, entry.kind) for target in list_targets().values() for entry in target.engines
]


def doubling() -> bytes:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (2, 3)) for n in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def entry(target: Target, kind: str) -> TargetEngine:
    return next(e for e in target.engines if e.kind == kind)


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x


def program() -> ExportedProgram:
    return torch.export.export(Doubling(), (torch.zeros(2, 3),))


def build(target: Target, kind: str) -> BuiltEngine | LibraError:
    try:
        return engine(kind).build(doubling(), entry(target, kind), target, program)
    except LibraError as error:
        return error


@pytest.mark.parametrize("kind", kinds())
def test_an_engine_kind_is_whole(kind: str) -> None:
    found = engine(kind)
    assert isinstance(found, Engine)
    assert not inspect.isabstract(type(found))
    assert found.kind == kind
    assert isinstance(found.qdq, QdqForm)
    assert found.is_available("NoSuchExecutionProvider") is False
    with pytest.raises(IncompatibleError, match="provider-unavailable"):
        found.load(doubling(), "NoSuchExecutionProvider", {})


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_target_gets_an_engine_or_one_clear_error(name: str, kind: str) -> None:
    target = load_target(name)
    built = build(target, kind)
    if isinstance(built, LibraError):
        assert isinstance(built, InputError | IncompatibleError)
        assert "Install" in built.remedy or "--engines-on-device" in built.remedy
        return
    assert (built.kind, built.provider) == (kind, entry(target, kind).provider)
    assert built.graph == doubling()
    assert [s.name for s in built.inputs] == ["x"]
    assert [s.shape for s in built.outputs] == [(2, 3)]
    onnx.load_from_string(built.content)
    assert (built.compilation is None) == (built.content == built.graph)
    if built.compilation is not None:
        assert built.compilation.compute_capability == target.compute_capability
        made_by = {built.compilation.compiler: built.compilation.version}
        assert engine(kind).tools().items() >= made_by.items()
    assert isinstance(engine(kind).products(built), list)


def test_a_cpu_target_has_no_gpu_to_compile_for() -> None:
    pytest.importorskip("tensorrt_rtx")
    cpu = load_target("cpu-x86_64")
    for kind in ("tensorrt", "tensorrt_rtx"):
        with pytest.raises(IncompatibleError, match="target-without-gpu"):
            engine(kind).build(doubling(), cpu.engines[0], cpu)


class Has:
    """A machine with TensorRT and, if told so, a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, gpu: bool, found: str | None) -> None:
        monkeypatch.setattr(tensorrt, "find_spec", lambda name: object())
        monkeypatch.setattr(tensorrt, "_DRIVERS", (Path("/") if gpu else Path("/no/driver"),))
        monkeypatch.setattr(tensorrt, "compute_capability", lambda: found)
        monkeypatch.setattr(tensorrt, "version", lambda name: "10.3.0")


def test_tensorrt_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    orin = load_target("jetson-agx-orin")
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="tensorrt-missing"):
        tensorrt.ENGINE.tools()
    Has(monkeypatch, gpu=False, found=None)
    with pytest.raises(IncompatibleError, match="gpu-missing"):
        tensorrt.ENGINE.build(doubling(), orin.engines[0], orin)
    Has(monkeypatch, gpu=True, found="8.9")
    with pytest.raises(IncompatibleError, match="compute-capability-mismatch") as caught:
        tensorrt.ENGINE.build(doubling(), orin.engines[0], orin)
    assert "8.9" in caught.value.fact
    assert "8.7" in caught.value.fact


def test_options_of_tensorrt_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Has(monkeypatch, gpu=True, found="8.7")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    orin = load_target("jetson-agx-orin")

    def request(options: dict[str, str]) -> dict[str, Any]:
        settings = orin.engines[0].model_copy(update={"options": options})
        return tensorrt.ENGINE.request(settings, orin)

    plain = request({})
    assert plain["compute_capability"] is None, "TensorRT builds for the GPU that it runs on"
    assert plain["timing_cache"].endswith("tensorrt/10.3.0.timing")
    made = request({"version_compatible": "true", "hardware_compatibility": "ampere_plus"})
    assert (made["version_compatible"], made["hardware_compatibility"]) == (True, "ampere_plus")
    wrong = orin.engines[0].model_copy(update={"options": {"version_compatibel": "true"}})
    with pytest.raises(InputError, match="Did you mean 'version_compatible'"):
        tensorrt.ENGINE.require_known_options(wrong, orin)


def test_the_worker_of_tensorrt_runs_with_the_api_that_both_compilers_share(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """TensorRT itself is not here: TensorRT-RTX, of the same API, stands in for it."""
    pytest.importorskip("tensorrt_rtx")
    Has(monkeypatch, gpu=True, found="8.9")
    monkeypatch.setattr(tensorrt, "version", lambda name: installed("tensorrt-rtx"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(type(tensorrt.ENGINE), "environment", {"POLYGRAPHY_USE_TENSORRT_RTX": "1"})
    request = tensorrt.ENGINE.request

    def ahead(settings: TargetEngine, target: Target) -> dict[str, Any]:
        return request(settings, target) | {"compute_capability": "89", "timing_cache": None}

    monkeypatch.setattr(tensorrt.ENGINE, "request", ahead)
    target = load_target("rtx4090")
    settings = TargetEngine(kind="tensorrt", provider="TensorrtExecutionProvider")
    built = tensorrt.ENGINE.build(doubling(), settings, target)
    assert built.compilation is not None
    assert built.compilation.compiler == "tensorrt"
    assert onnx.load_from_string(built.content).graph.node[0].op_type == "EPContext"
