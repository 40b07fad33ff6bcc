"""The floats of what no recipe rounds: what a release says of them, and what its graphs are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from libra_edge.bundle.manifest import Decision, Manifest, ReleaseFacts
from libra_edge.bundle.pack import write_release
from libra_edge.bundle.verify import verify_integrity
from libra_edge.catalog import load_recipe
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.quantization.assign import rest_subject
from libra_edge.compiler.request import Request
from libra_edge.engines import engine
from libra_edge.engines._tensorrt import TensorRtFamily
from libra_edge.parity.gates import Check
from libra_edge.verification.claims.graphs import read_graph
from libra_edge.verification.claims.held import STAGE
from libra_edge.verification.request import Request as VerifyRequest
from libra_edge.verification.verify import verify_release
from tests.compiler.quantization.test_calibration_data import episodes, write
from tests.tiny import write_tiny_checkpoint

GATES = "[gates]\ntokens = 0.5\naction = 0.4\nmargin_percentile = 50\n"
GRAPHS = ("planner", "refiner")


def compiled(folder: Path, out: str, **changes: object) -> Path:
    """An int8 release for an RTX 4090 whose engines the robot builds: no GPU, no compiler here."""
    request = Request(
        folder / "checkpoint",
        target="rtx4090",
        recipe="int8",
        calibrate=folder / "train",
        calibration_samples=128,
        gates=folder / "gates.toml",
        allow_loose=True,
        out=folder / out,
        cache=folder / "cache",
        form="loop",
        samples=8,
        engines_on_device=True,
    )
    compile_checkpoint(replace(request, **changes))
    return folder / out


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rest")
    (folder / "gates.toml").write_text(GATES)
    write_tiny_checkpoint(folder / "checkpoint")
    write(folder / "train", episodes())
    compiled(folder, "half")
    with pytest.MonkeyPatch.context() as patch:
        single = replace(TensorRtFamily.qdq, rest="fp32")
        patch.setattr(TensorRtFamily, "qdq", single)
        compiled(folder, "single")
    return folder


def retold(work: Path, name: str, out: Path, change: Callable[[Decision], Decision | None]) -> Path:
    """The release with other decisions and the same graphs; None leaves one out."""
    source = work / name
    facts = Manifest.model_validate_json((source / "manifest.json").read_bytes())
    fields = {field: getattr(facts, field) for field in ReleaseFacts.model_fields}
    fields["decisions"] = tuple(d for d in map(change, facts.decisions) if d is not None)
    if out.name == "claims-half":
        fields["decisions"] += tuple(
            Decision(stage="quantise", subject=rest_subject(g), choice="fp16", reason="faster")
            for g in GRAPHS
        )
    write_release(out, ReleaseFacts(**fields), {m: source / m for m in facts.members})
    return out


def claims(release: Path) -> dict[str, Check]:
    found = verify_release(VerifyRequest(release, golden_only=True))
    return {check.metric: check for check in found.checks if check.stage == STAGE}


def failed(found: dict[str, Check]) -> set[str]:
    return {name for name, check in found.items() if check.verdict == "fail"}


def test_gpu_engines_get_a_rest_of_16_bits_and_say_so(work: Path) -> None:
    manifest = verify_integrity(work / "half")
    told = {d.subject: d.choice for d in manifest.decisions}
    for name in GRAPHS:
        facts = read_graph((work / f"half/engines/{name}.onnx").read_bytes())
        assert facts.rest == {"fp16"}, "no product, softmax or normalisation in 32 bits"
        assert told[rest_subject(name)] == "fp16"
        other = read_graph((work / f"single/engines/{name}.onnx").read_bytes())
        assert other.rest == {"fp32"}
        assert [str(p) for p in other.layers] == [str(p) for p in facts.layers]
        work_of = manifest.engines.by_name[name].work
        assert work_of is not None
        assert set(work_of.tera_operations) == {"fp16", "int8"}
    assert told["planner.output"] == "fp16"
    assert not failed(claims(work / "half"))


def test_a_release_of_before_has_32_bits_and_says_nothing(work: Path) -> None:
    told = {d.subject for d in verify_integrity(work / "single").decisions}
    assert not told & {rest_subject(name) for name in GRAPHS}
    assert not failed(claims(work / "single"))


def test_32_bits_that_call_themselves_16_fail(work: Path, tmp_path: Path) -> None:
    release = retold(work, "single", tmp_path / "claims-half", lambda d: d)
    found = claims(release)
    for name in GRAPHS:
        check = found[rest_subject(name)]
        assert check.verdict == "fail"
        assert "'fp16' in the manifest, the graphs say 'fp32'" in check.note
    assert found["decisions"].verdict == "fail"


@pytest.mark.parametrize("silent", [False, True])
def test_16_bits_that_call_themselves_32_fail(work: Path, tmp_path: Path, silent: bool) -> None:
    def change(decision: Decision) -> Decision | None:
        if not decision.subject.startswith("rest of the"):
            return decision
        return None if silent else decision.model_copy(update={"choice": "fp32"})

    found = claims(retold(work, "half", tmp_path / "out", change))
    for name in GRAPHS:
        assert "'fp32' in the manifest, the graphs say 'fp16'" in found[rest_subject(name)].note


def test_layers_that_call_their_floats_otherwise_fail(work: Path, tmp_path: Path) -> None:
    def change(decision: Decision) -> Decision:
        other = decision.subject == "planner.output"
        return decision.model_copy(update={"choice": "fp32"}) if other else decision

    found = claims(retold(work, "half", tmp_path / "out", change))
    assert failed(found) == {"decisions"}
    assert "planner.output" in found["decisions"].note


@pytest.mark.long
def test_it_is_compiled_again_from_what_it_says(work: Path) -> None:
    for name in ("half", "single"):
        request = VerifyRequest(
            work / name,
            work / "checkpoint",
            calibrate=work / "train",
            cache=work / "cache",
            gates=work / "gates.toml",
            allow_loose=True,
            samples=4,
        )
        checks = verify_release(request).checks
        again = {c.metric: c for c in checks if c.stage == "graphs, as written vs fused"}
        assert again
        assert {c.verdict for c in again.values()} == {"pass"}, again
        assert all(c.verdict != "fail" for c in checks if c.stage == STAGE), checks


def test_a_recipe_may_ask_for_32_bits(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = load_recipe("int8").model_copy(update={"rest": "fp32"})
    monkeypatch.setattr("libra_edge.compiler.resolve.load_recipe", lambda name: asked)
    manifest = verify_integrity(compiled(work, "asked"))
    told = {d.subject: (d.choice, d.reason) for d in manifest.decisions}
    single = verify_integrity(work / "single")
    for name in GRAPHS:
        assert told[rest_subject(name)] == ("fp32", "recipe int8 says so")
        member = f"engines/{name}.onnx"
        assert manifest.members[member] == single.members[member]
        assert manifest.engines.by_name[name].work == single.engines.by_name[name].work
    assert not failed(claims(work / "asked"))


def test_a_cpu_is_left_in_32_bits() -> None:
    assert engine("onnxruntime").qdq.rest == "fp32"
    assert {engine(kind).qdq.rest for kind in ("tensorrt", "tensorrt_rtx", "torch_tensorrt")} == {
        "fp16"
    }
