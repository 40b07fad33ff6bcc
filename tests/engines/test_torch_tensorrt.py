"""Torch-TensorRT at the library's boundary: what it is given, and what becomes of what it gives.

The library and the GPU are not here. A stand-in with the signature of 2.13.0 takes their place: it
shows what we ask for, not that an engine comes out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from onnx import helper
from torch.export import ExportedProgram

from libra_edge.catalog import load_target
from libra_edge.compiler.engines.plan import plan_engines
from libra_edge.engines import tensorrt, torch_tensorrt
from libra_edge.engines._epcontext import unwrap
from libra_edge.engines.base import BuiltEngine
from libra_edge.engines.torch_tensorrt import ENGINE
from libra_edge.errors import IncompatibleError, InputError
from tests.engines.test_contract import doubling, program

H200 = load_target("h200")
ENTRY = next(entry for entry in H200.engines if entry.kind == "torch_tensorrt")


class Library:
    """Packages and a GPU that are not here; keeps what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capability: str = "9.0") -> None:
        self.asked: list[tuple[ExportedProgram, Sequence[Any], bool]] = []
        self.error: Exception | None = None
        modules = {"torch_tensorrt": ModuleType("torch_tensorrt")}
        modules["torch_tensorrt.dynamo"] = ModuleType("torch_tensorrt.dynamo")
        modules["tensorrt"] = ModuleType("tensorrt")
        name = "convert_exported_program_to_serialized_trt_engine"
        setattr(modules["torch_tensorrt.dynamo"], name, self.convert)
        engine = SimpleNamespace(device_memory_size_v2=4096)
        runtime = SimpleNamespace(deserialize_cuda_engine=lambda content: engine)
        vars(modules["tensorrt"]).update(
            Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None}),
            Runtime=lambda logger: runtime,
        )
        for module, content in modules.items():
            content.__spec__ = ModuleSpec(module, None)
            monkeypatch.setitem(sys.modules, module, content)
        monkeypatch.setattr(torch_tensorrt, "find_spec", lambda name: object())
        monkeypatch.setattr(torch_tensorrt, "version", lambda name: "2.13.0")
        monkeypatch.setattr(tensorrt, "_DRIVERS", (Path("/"),))
        monkeypatch.setattr(tensorrt, "compute_capability", lambda: capability)
        there = "torch.export.passes.move_to_device_pass"
        monkeypatch.setattr(there, lambda program, device: program)

    def convert(
        self,
        exported_program: ExportedProgram,
        inputs: Sequence[Any] | None = None,
        *,
        arg_inputs: Sequence[Any] | None = None,
        disable_tf32: bool = False,
    ) -> bytes:
        assert arg_inputs is not None
        self.asked.append((exported_program, arg_inputs, disable_tf32))
        if self.error is not None:
            raise self.error
        return b"engine"


def build(make: Callable[[], ExportedProgram] | None = program) -> BuiltEngine:
    return ENGINE.build(doubling(), ENTRY, H200, make)


def test_the_program_goes_in_and_the_engine_lies_in_an_onnx_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = Library(monkeypatch)
    built = build()
    ((asked, arguments, no_tf32),) = library.asked
    assert torch.equal(asked.module()(torch.ones(2, 3)), torch.full((2, 3), 2.0))
    assert [tuple(a.shape) for a in arguments] == [(2, 3)]
    assert no_tf32, "fp32 is fp32"
    assert unwrap(built.content) == b"engine"
    assert built.graph == doubling(), "the plain graph stays"
    graph = onnx.load_from_string(built.content).graph
    node, renamed = graph.node
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert attributes["hardware_architecture"] == b"90"
    assert list(node.input) == ["x"], "the program's own names"
    assert (list(node.output), renamed.op_type) == (["output0"], "Identity")
    assert list(renamed.output) == [value.name for value in graph.output] == ["y"]
    assert built.compilation is not None
    assert (built.compilation.engine_bytes, built.compilation.workspace_bytes) == (6, 4096)
    assert ENGINE.tools() == {"torch-tensorrt": "2.13.0", "tensorrt": "2.13.0"}


def test_what_it_does_not_take_is_told_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(monkeypatch)
    library.error = RuntimeError("no converter for trt::quantize")
    with pytest.raises(IncompatibleError, match="engine-not-built") as caught:
        build()
    assert "trt::quantize" in caught.value.fact
    with pytest.raises(IncompatibleError, match="program-missing"):
        build(None)


def test_one_error_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    Library(monkeypatch, capability="8.9")
    with pytest.raises(IncompatibleError, match="compute-capability-mismatch"):
        build()
    monkeypatch.setattr(tensorrt, "_DRIVERS", ())
    for call in (ENGINE.tools, build):
        with pytest.raises(IncompatibleError, match="gpu-missing"):
            call()
    monkeypatch.setattr(torch_tensorrt, "find_spec", lambda name: None)
    for call in (ENGINE.tools, build):
        with pytest.raises(InputError, match=r"libra-edge\[gpu\].*--engines-on-device"):
            call()


def test_it_has_to_be_asked_for() -> None:
    assert plan_engines(H200).settings.kind == "tensorrt"
    plan = plan_engines(H200, kind="torch_tensorrt")
    assert (plan.settings, plan.reason) == (ENTRY, "asked for with --engine")
    with pytest.raises(IncompatibleError, match="nothing-to-build-on-device"):
        plan_engines(H200, kind="torch_tensorrt", on_device=True)
    with pytest.raises(InputError, match="Did you mean 'tensorrt_rtx'"):
        plan_engines(load_target("rtx4090"), kind="tensorrt_rt")
