"""16-bit floats: the scales of what is rounded between them, and policies of other families."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import pytest
import torch

from libra_edge.compiler.graphs.export import export
from libra_edge.compiler.graphs.make_graphs import parts_of
from libra_edge.compiler.graphs.staged_engines import exported_engines, split_engines
from libra_edge.compiler.quantization.fp16 import halve, stored_scale
from libra_edge.compiler.quantization.linear import ActivationQuantizer
from libra_edge.engines._tensorrt import TensorRtFamily
from libra_edge.evaluation.torch_controller import torch_engines
from libra_edge.policy.imported import Imported, family_of, module_of, read_imported
from tests.policy.lerobot_cases import Case, case, changed, edit_tensors, names

PRODUCTS = {"MatMul", "Gemm", "Conv", "ConvTranspose"}


def moving(tensors: dict[str, torch.Tensor]) -> None:
    """Every dimension moves: what stands still is divided by next to nothing."""
    for name, tensor in tensors.items():
        base, _, kind = name.rpartition(".")
        low = {"max": "min", "q99": "q01"}.get(kind)
        if kind == "std":
            tensors[name] = tensor.clamp(min=0.5)
        elif low is not None:
            tensors[name] = torch.maximum(tensor, tensors[f"{base}.{low}"] + 0.5)


@pytest.fixture(scope="module", params=names())
def read(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    found: Case = case(request.param)
    folder: Path = changed(
        found.folder,
        tmp_path_factory.mktemp(request.param) / "folder",
        edit_tensors("policy_preprocessor*.safetensors", moving),
    )
    family = family_of(folder)
    assert family is not None
    imported = read_imported(family, folder, found.options)
    imported.policy.samples = found.samples  # type: ignore[attr-defined]
    return imported


def test_what_it_does_stays(read: Imported) -> None:
    before, after = torch_engines(read.policy), torch_engines(halve(read.policy))
    for sample in read.policy.samples[:3]:  # type: ignore[attr-defined]
        given = (sample.images, sample.state, np.empty(0, np.int32), sample.noise)
        wanted, found = (e.refine(*given, sample.instruction) for e in (before, after))
        span = np.maximum(wanted.max(0) - wanted.min(0), 1e-3)
        error = np.abs(found - wanted) / span
        assert 0 < error.max() < 0.05
        assert found.dtype == np.float32


def test_the_policy_itself_is_left_alone(read: Imported) -> None:
    halve(read.policy)
    assert {p.dtype for p in module_of(read.policy).parameters()} == {torch.float32}


def test_every_product_of_its_layers_is_in_16_bits(read: Imported) -> None:
    parts = parts_of(halve(read.policy))
    exported = {graph.name: export(graph) for graph in parts.graphs}
    counted = 0
    for model in exported.values():
        weights = {one.name: one.data_type for one in model.graph.initializer}
        types = dict(weights)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        for value in (*inferred.value_info, *inferred.input, *inferred.output):
            types[value.name] = value.type.tensor_type.elem_type
        for node in model.graph.node:
            if node.op_type in PRODUCTS and any(name in weights for name in node.input):
                assert types[node.input[0]] == onnx.TensorProto.FLOAT16, node.name
                counted += 1
    assert counted > 8
    sample = read.policy.samples[0]  # type: ignore[attr-defined]
    given = (sample.images, sample.state, np.empty(0, np.int32), sample.noise)
    content = {name: model.SerializeToString() for name, model in exported.items()}
    engines = exported_engines(content, parts.tables)
    found = engines.refine(*given, sample.instruction)
    wanted = split_engines(parts).refine(*given, sample.instruction)
    span = np.maximum(wanted.max(0) - wanted.min(0), 1e-3)
    assert (np.abs(found - wanted) / span).max() < 0.05


def test_scales_in_16_bits_clip_nothing_and_never_vanish() -> None:
    scales = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 1e-3
    stored = stored_scale(scales, torch.float16)
    assert stored.dtype == torch.float16
    assert (stored.double() >= scales).all(), "rounded up"
    assert (stored[scales > 1e-4].double() <= scales[scales > 1e-4] * 1.001).all()
    tiny = torch.tensor([1e-12, 2e-5])
    assert (stored_scale(tiny, torch.float16) > 0).all()
    normal = stored_scale(tiny, torch.float16, of_floats=True)
    assert normal.tolist() == [2.0**-14] * 2, "8-bit floats can be the smaller ones instead"
    assert stored_scale(torch.tensor([1e9]), torch.float16).isfinite().all()
    assert stored_scale(scales, torch.float32) is scales


@pytest.mark.parametrize(
    ("precision", "zero"), [("int8", torch.int8), ("fp8", torch.float8_e4m3fn)]
)
def test_an_activation_keeps_its_floats(precision: str, zero: torch.dtype) -> None:
    quantizer = ActivationQuantizer(3.0, precision, TensorRtFamily.qdq, None, torch.float16)
    assert quantizer.scale.dtype == torch.float16
    x = torch.linspace(-3, 3, 101).half()
    y = quantizer(x)
    assert y.dtype == torch.float16
    step = 0.04 if precision == "int8" else 0.2
    assert 0 < (y - x).abs().max() < step
