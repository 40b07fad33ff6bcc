"""Policies that no one ONNX file can hold: small ones, sent the same way."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from libra_edge.binding.policy import Policy
from libra_edge.bundle.compatibility import require_trained
from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.pack import pack_release, unpack_release
from libra_edge.bundle.verify import verify_integrity
from libra_edge.catalog import load_recipe, load_target
from libra_edge.catalog.providers import PROVIDERS
from libra_edge.compiler.engines import large_policy
from libra_edge.compiler.engines.plan import plan_engines
from libra_edge.compiler.graphs.export import export, to_bytes
from libra_edge.compiler.graphs.external_weights import export_apart
from libra_edge.compiler.graphs.staged_engines import as_written
from libra_edge.compiler.pipeline import Compiled, compile_checkpoint
from libra_edge.compiler.quantization.fp16 import halve_in_place
from libra_edge.compiler.request import Request
from libra_edge.engines import tensorrt_rtx
from libra_edge.engines._tensorrt import TensorRtFamily
from libra_edge.engines.session import open_graph
from libra_edge.errors import IncompatibleError, InputError, IntegrityError
from libra_edge.evaluation.half import products_of
from libra_edge.policy.checkpoint import load_checkpoint
from libra_edge.policy.family import Parts
from libra_edge.policy.libra_vla.split import split
from libra_edge.verification.request import Request as VerifyRequest
from libra_edge.verification.verify import verify_release
from tests.providers import stand_in
from tests.tiny import tiny_config, write_tiny_checkpoint

RTX4090 = load_target("rtx4090")
FP16 = load_recipe("fp16")
SMALL = 256  # the tiny policy's products have weights of 512 bytes and more
HEADER = struct.Struct("<4sIIIQ4s4sI")
LOG = "INFO Total Weights Memory: 7 bytes\nINFO Total Activation Memory: 9 bytes\n"


@pytest.fixture(scope="module", autouse=True)
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        wanted = PROVIDERS[RTX4090.engines[0].provider]
        patch.syspath_prepend(stand_in(tmp_path_factory.mktemp("provider"), wanted))
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("large") / "checkpoint")


@pytest.fixture(scope="module")
def parts(checkpoint: Path) -> Parts:
    return split(load_checkpoint(checkpoint).policy)


def locations(model: ModelProto) -> set[str]:
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    return {entry.value for entry in entries if entry.key == "location"}


@pytest.fixture(scope="module")
def folder(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """planner.onnx beside planner.data."""
    result = tmp_path_factory.mktemp("planner")
    model = export_apart(parts.planner, result / "planner.data", smallest_bytes=SMALL)
    (result / "planner.onnx").write_bytes(to_bytes(model))
    return result


def test_weights_in_a_file_of_their_own_compute_the_same(parts: Parts, folder: Path) -> None:
    graph, usual = parts.planner, export(parts.planner)
    model = ModelProto.FromString((folder / "planner.onnx").read_bytes())
    assert locations(model) == {"planner.data"}
    inside = [t for t in model.graph.initializer if t.data_location != TensorProto.EXTERNAL]
    assert max(len(tensor.raw_data) for tensor in inside) < SMALL
    random = np.random.default_rng(0)
    feeds = {
        name: random.integers(0, 8, tensor.shape).astype(tensor.numpy().dtype)
        for name, tensor in zip(graph.inputs, graph.arguments, strict=True)
    }
    found = open_graph(folder / "planner.onnx").run(feeds)
    for output, values in as_written(to_bytes(usual)).run(feeds).items():
        np.testing.assert_allclose(found[output], values, rtol=1e-5, atol=1e-6)
    require_same_names(model, usual)


def require_same_names(model: ModelProto, usual: ModelProto) -> None:
    """It is by the names of weights that an engine says what every layer runs in."""
    found, expected = (
        {t.name: t for t in graph.initializer if t.name.endswith(".weight") and len(t.dims) == 2}
        for graph in (model.graph, usual.graph)
    )
    # One more than usual: a product of two weights, which simplification would have evaluated.
    assert found.keys() - expected.keys() == {"policy.planner.blocks.0.attention.query.weight"}
    for name, tensor in expected.items():
        assert found[name].dims == tensor.dims, name


def test_the_same_policy_has_the_same_bytes(parts: Parts, folder: Path, tmp_path: Path) -> None:
    model = export_apart(parts.planner, tmp_path / "planner.data", smallest_bytes=SMALL)
    assert to_bytes(model) == (folder / "planner.onnx").read_bytes()
    assert (tmp_path / "planner.data").read_bytes() == (folder / "planner.data").read_bytes()


def test_weights_are_drawn_in_16_bits_but_for_what_becomes_a_table(checkpoint: Path) -> None:
    drawn = load_checkpoint(checkpoint, random_weights=True, in_half=True)
    assert {p.dtype for p in drawn.policy.parameters()} == {torch.float16}
    assert {b.dtype for b in drawn.policy.buffers()} == {torch.float32}
    assert torch.get_default_dtype() == torch.float32
    single = load_checkpoint(checkpoint, random_weights=True)
    assert drawn.sha256 != single.sha256, "other weights"
    halved = halve_in_place(drawn.policy)
    kept = {n for n, p in halved.named_parameters() if p.dtype == torch.float32}
    assert kept == {f"refiner.{n}.{p}" for n in ("time.0", "modulate") for p in ("weight", "bias")}


def test_products_in_32_bits_are_those_in_16_but_for_rounding(checkpoint: Path) -> None:
    policy = halve_in_place(load_checkpoint(checkpoint).policy)
    before = {name: parameter.clone() for name, parameter in policy.named_parameters()}
    config = policy.config
    robot = config.embodiment
    shape = (1, len(robot.cameras), robot.image_height, robot.image_width, 3)
    inputs = (
        torch.randint(0, 256, shape, dtype=torch.uint8),
        torch.ones(1, config.instruction_length, dtype=torch.int64),
        torch.ones(1, len(robot.state)),
    )
    with torch.no_grad():
        usual = policy.planner(*inputs)
        with products_of(policy):
            found = policy.planner(*inputs)
    assert (found - usual).abs().max() < 0.01 * usual.abs().max()
    for name, parameter in policy.named_parameters():
        assert parameter.dtype == before[name].dtype
        assert torch.equal(parameter, before[name]), name


def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_policy, "LARGEST_WEIGHTS_BYTES", 1000)
    monkeypatch.setattr(
        large_policy,
        "export_apart",
        lambda graph, data: export_apart(graph, data, smallest_bytes=SMALL),
    )


def fake_worker(self: TensorRtFamily, folder: Path, name: str) -> dict[str, Any]:
    """Instead of a compiler: an engine's header, and the names of what it would read."""
    graph = ModelProto.FromString((folder / "graph.onnx").read_bytes())
    sizes = {name: (folder / name).stat().st_size for name in locations(graph)}
    names = json.dumps(sizes).encode()
    size, version = HEADER.size + len(names), bytes((1, 7, 1, 116))
    head = HEADER.pack(b"vtrt", 0, 2, 0, size, version, b"vtrt", 8)
    (folder / "engine").write_bytes(head + names)
    (folder / "log").write_text(LOG)
    return {"version": "1.7.1.116", "error": "", "duration_s": 1.0, "peak_memory_bytes": 5}


@pytest.fixture(scope="module")
def compiled(checkpoint: Path) -> Compiled:
    with pytest.MonkeyPatch.context() as patch:
        small_limit(patch)
        patch.setattr(TensorRtFamily, "_run_worker", fake_worker)
        patch.setattr(tensorrt_rtx, "find_spec", lambda name: object())
        patch.setattr(tensorrt_rtx, "version", lambda name: "1.0")
        work = checkpoint.parent
        request = Request(
            checkpoint,
            "rtx4090",
            "fp16",
            work / "release",
            cache=work / "cache",
            random_weights=True,
        )
        return compile_checkpoint(request)


def test_weights_and_engines_are_members_by_fixed_names(compiled: Compiled) -> None:
    members = compiled.manifest.members
    for name in large_policy.GRAPHS:
        assert members[f"engines/{name}.onnx"].size_bytes > 0
        data = members[f"engines/{name}.data"].size_bytes
        content = (compiled.path / f"engines/{name}.engine").read_bytes()
        engine = json.loads(content[HEADER.size :])
        assert engine == {f"{name}.data": data}, "the compiler was given the graph's weights"
        wrapper = (compiled.path / f"engines/{name}.engine.onnx").read_bytes()
        (node,) = ModelProto.FromString(wrapper).graph.node
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert attributes["embed_mode"] == 0
        assert attributes["ep_cache_context"] == f"{name}.engine".encode()
    assert not list((compiled.path.parent / "cache").glob("tmp*")), "nothing large is left behind"


def test_it_is_checked_as_far_as_it_can_be_and_marked_as_random(compiled: Compiled) -> None:
    measured = {c.metric for c in compiled.checks if c.verdict == "pass"}
    assert {"finite", "tokens equal", "action error / range"} <= measured
    assert compiled.manifest.parity.verdict == "not measured", "no engine ran here"
    assert "random-weights" in compiled.manifest.name
    with pytest.raises(IncompatibleError, match="random-weights"):
        require_trained(compiled.manifest)


def test_it_survives_as_one_file(compiled: Compiled, tmp_path: Path) -> None:
    pack_release(compiled.path, tmp_path / "one.libra")
    unpack_release(tmp_path / "one.libra", tmp_path / "again")
    assert verify_integrity(tmp_path / "again") == compiled.manifest


@pytest.mark.parametrize("member", ["engines/planner.data", "engines/refiner.engine"])
def test_one_other_byte_of_what_lies_apart_is_found(
    compiled: Compiled, tmp_path: Path, member: str
) -> None:
    pack_release(compiled.path, tmp_path / "one.libra")
    unpack_release(tmp_path / "one.libra", tmp_path / "again")
    content = bytearray((tmp_path / "again" / member).read_bytes())
    content[-1] ^= 1
    (tmp_path / "again" / member).write_bytes(content)
    with pytest.raises(IntegrityError, match="member-changed"):
        verify_integrity(tmp_path / "again")


def test_the_runtime_refuses_it_before_it_opens_a_member(compiled: Compiled) -> None:
    with pytest.raises(IncompatibleError, match="incompatible") as caught:
        Policy(compiled.path, allow_random_weights=True)
    assert "engines that lie in one file" in caught.value.fact


def test_verify_says_that_nothing_of_it_runs_here(compiled: Compiled) -> None:
    verdicts = [
        check.verdict
        for check in verify_release(VerifyRequest(compiled.path, golden_only=True)).checks
    ]
    assert verdicts[0] == "pass"
    assert "not measured" in verdicts
    assert "fail" not in verdicts


@pytest.mark.parametrize("name", ["engines/planner.engine", "engines/refiner.engine"])
def test_an_engine_by_itself_is_no_release(compiled: Compiled, name: str) -> None:
    body = compiled.manifest.model_dump(mode="json")
    body["engines"][name[8:15]]["member"] = f"{name[:15]}.onnx"
    del body["members"][f"{name}.onnx"]
    with pytest.raises(ValueError, match=f"member '{name}' without"):
        Manifest.model_validate(body)


def test_what_cannot_be_compiled_is_refused_before_anything_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(large_policy, "LARGEST_WEIGHTS_BYTES", 1000)
    config = tiny_config()
    assert large_policy.is_large(config)
    rtx, cpu = (plan_engines(load_target(name)) for name in ("rtx4090", "cpu-x86_64"))
    large_policy.require_drawn(config, FP16, rtx, random=True)
    for code, arguments, random in (
        ("model-too-large", (config, FP16, rtx), False),
        ("model-too-large", (config, FP16, cpu), True),
        ("model-too-large", (tiny_config(refiner=None), FP16, rtx), True),
        ("large-policy-recipe", (config, load_recipe("fp8"), rtx), True),
    ):
        with pytest.raises(InputError, match=code):
            large_policy.require_drawn(*arguments, random=random)
