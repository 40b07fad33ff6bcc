"""Bisecting int8 releases: both graphs quantised alike, so that only the fault is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from libra_edge.bundle.manifest import Manifest, ReleaseFacts
from libra_edge.compiler.graphs.export import from_bytes, to_bytes
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.errors import ExitCode, InputError
from libra_edge.limits import Verdict
from libra_edge.verification.bisect import Culprit, release_culprits
from libra_edge.verification.claims.held import STAGE as CLAIMS
from libra_edge.verification.recompile import STAGES_BETWEEN
from libra_edge.verification.request import Request as VerifyRequest
from libra_edge.verification.result import Verification
from libra_edge.verification.verify import verify_release
from tests.attacks.engines.surgery import store, tensor, values
from tests.compiler.quantization.test_calibration_data import episodes, write
from tests.rewriting import rewrite
from tests.tiny import write_tiny_checkpoint

GATES = "[gates]\ntokens = 0.9\naction = 0.1\nmargin_percentile = 50\n"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bisect")
    (folder / "gates.toml").write_text(GATES)
    write_tiny_checkpoint(folder / "checkpoint")
    write(folder / "train", episodes())
    compile_checkpoint(
        Request(
            folder / "checkpoint",
            recipe="int8",
            calibrate=folder / "train",
            calibration_samples=128,
            gates=folder / "gates.toml",
            allow_loose=True,
            out=folder / "release",
            cache=folder / "cache",
            form="loop",
        )
    )
    return folder


def harmed(
    work: Path, out: Path, graph: str, suffix: str, harm: Callable[[np.ndarray], np.ndarray]
) -> Path:
    """The release with one tensor of a plain graph changed."""
    source, name = work / "release", f"engines/{graph}.onnx"
    facts = Manifest.model_validate_json((source / "manifest.json").read_bytes())
    model = from_bytes((source / name).read_bytes())
    found = tensor(model, suffix)
    before = values(found)
    store(found, harm(before).astype(before.dtype))
    assert not np.array_equal(before, values(found))
    files: dict[str, Path | bytes] = {member: source / member for member in facts.members}
    fields = {field: getattr(facts, field) for field in ReleaseFacts.model_fields}
    rewrite(out, ReleaseFacts(**fields), files | {name: to_bytes(model)})
    return out


def culprits(work: Path, release: Path, out: Path, calibrate: str = "train") -> list[Culprit]:
    return release_culprits(
        VerifyRequest(
            release,
            work / "checkpoint",
            seed=0,
            cache=work / "cache",
            calibrate=work / calibrate,
        ),
        out,
    )


def test_nothing_in_a_good_release(work: Path, tmp_path: Path) -> None:
    assert culprits(work, work / "release", tmp_path / "out") == []


@pytest.mark.parametrize(
    ("graph", "suffix", "harm", "step", "layer"),
    [
        (
            "refiner",
            "refiner.blocks.0.mlp.0.weight.scale",
            lambda scale: scale * 2,
            0,
            "refiner.blocks.0.mlp.0",
        ),
        (
            "refiner",
            "refiner.blocks.1.mlp.2.weight.stored",
            lambda stored: -stored,
            0,
            "refiner.blocks.1.mlp.2",
        ),
        (
            "planner",
            "planner.blocks.0.mlp.0.input.scale",
            lambda scale: scale * 3,
            None,
            "planner.blocks.0.mlp.0",
        ),
    ],
)
def test_the_first_wrong_operator_of_a_quantized_graph(
    work: Path,
    tmp_path: Path,
    graph: str,
    suffix: str,
    harm: Callable[[np.ndarray], np.ndarray],
    step: int | None,
    layer: str,
) -> None:
    release = harmed(work, tmp_path / "release", graph, suffix, harm)
    (culprit,) = culprits(work, release, tmp_path / "out")
    assert (culprit.graph, culprit.step, culprit.layer) == (graph, step, layer)


def test_faults_of_float_layers_are_found_too(work: Path, tmp_path: Path) -> None:
    release = harmed(
        work, tmp_path / "release", "planner", "planner.output.bias", lambda bias: bias + 10
    )
    (culprit,) = culprits(work, release, tmp_path / "out")
    assert (culprit.graph, culprit.layer) == ("planner", "planner.output")
    assert (tmp_path / "out/planner/repro.onnx").is_file()
    onnx.checker.check_model(onnx.load(tmp_path / "out/planner/repro.onnx"))


def test_what_it_was_calibrated_on_is_needed_and_must_be_that(work: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="calibration-data-needed"):
        release_culprits(
            VerifyRequest(work / "release", work / "checkpoint", seed=0, cache=work / "cache"),
            tmp_path / "out",
        )
    write(work / "others", episodes(first_seed=50))
    with pytest.raises(InputError, match="calibration-data-differs"):
        culprits(work, work / "release", tmp_path / "out", calibrate="others")


def retold(work: Path, out: Path, **changes: object) -> Path:
    """The release with another table of calibration."""
    source = work / "release"
    facts = Manifest.model_validate_json((source / "manifest.json").read_bytes())
    fields = {field: getattr(facts, field) for field in ReleaseFacts.model_fields}
    assert facts.calibration is not None
    fields["calibration"] = facts.calibration.model_copy(update=changes) if changes else None
    files: dict[str, Path | bytes] = {member: source / member for member in facts.members}
    rewrite(out, ReleaseFacts(**fields), files)
    return out


def test_ranges_that_were_found_in_another_way_are_no_reference(work: Path, tmp_path: Path) -> None:
    by_entropy = retold(work, tmp_path / "entropy", algorithm="entropy")
    with pytest.raises(InputError, match="calibration-differs"):
        culprits(work, by_entropy, tmp_path / "out")
    manifest = Manifest.model_validate_json((work / "release/manifest.json").read_bytes())
    assert manifest.calibration is not None
    layers = dict(manifest.calibration.layers)
    name = next(name for name, layer in layers.items() if layer.input_amax is not None)
    layers[name] = layers[name].model_copy(update={"input_amax": 123.0})
    with pytest.raises(InputError, match=rf"calibration-differs.*{name}.*123"):
        culprits(work, retold(work, tmp_path / "other", layers=layers), tmp_path / "out")


def test_a_release_without_the_table_is_judged_by_what_it_has(work: Path, tmp_path: Path) -> None:
    release = retold(work, tmp_path / "old")
    with pytest.raises(InputError, match="calibration-not-recorded"):
        culprits(work, release, tmp_path / "out")
    result = verify_release(
        VerifyRequest(
            release,
            work / "checkpoint",
            samples=8,
            cache=work / "cache",
            gates=work / "gates.toml",
            allow_loose=True,
            calibrate=work / "train",
        )
    )
    assert [c.stage for c in result.checks if c.verdict == "not measured"] == [STAGES_BETWEEN]
    assert "C ABI vs engine" in {c.stage for c in result.checks}
    assert not [c for c in result.checks if c.verdict == "fail"]


def verify(work: Path, release: Path, **options: object) -> Verification:
    request = {
        **{"checkpoint": work / "checkpoint", "samples": 16, "cache": work / "cache"},
        **{"gates": work / "gates.toml", "allow_loose": True, "calibrate": work / "train"},
    }
    return verify_release(VerifyRequest(release, **{**request, **options}))


def about_calibration(result: Verification) -> dict[str, Verdict]:
    found = {c.metric: c.verdict for c in result.checks if c.stage == CLAIMS}
    return {metric: verdict for metric, verdict in found.items() if "calibration" in metric}


def test_verify_holds_every_stage_of_a_quantized_release(work: Path) -> None:
    result = verify(work, work / "release")
    assert {
        "quantised vs PyTorch policy",
        "split vs quantised",
        "fused vs exported",
        "engine vs fused",
    } <= {check.stage for check in result.checks}
    assert result.left_out == ()
    assert result.exit_code is ExitCode.OK, [c for c in result.checks if c.verdict != "pass"]
    compared = {f"calibration {what}" for what in ("dataset", "samples", "frames", "ranges")}
    found = about_calibration(result)
    assert compared | {"decisions about calibration"} <= found.keys()
    assert set(found.values()) == {"pass"}
    assert not [what for what in result.unchecked if "calibration" in what]
    denoising = result.behind.denoising
    assert denoising is not None
    assert denoising.runs_in == "CPUExecutionProvider"
    assert denoising.steps[0].mean.value > 1e-5, "integers round"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"calibrate": None}, "they need --calibrate DATASET"),
        (
            {"calibrate": None, "checkpoint": None},
            "they need --checkpoint CHECKPOINT and --calibrate DATASET",
        ),
        ({"quick": True}, "--quick calibrates nothing again"),
        ({"golden_only": True}, "--golden-only calibrates nothing again"),
    ],
    ids=["no data", "no checkpoint", "quick", "golden only"],
)
def test_what_was_not_calibrated_again_is_claimed_and_no_more(
    work: Path, options: dict[str, object], why: str
) -> None:
    result = verify(work, work / "release", **options)
    assert f"calibration data, frames and ranges ({why})" in result.unchecked
    assert "calibration ranges" not in about_calibration(result)


@pytest.mark.parametrize("claim", ["dataset", "frames", "ranges"])
def test_a_table_of_another_calibration_fails(work: Path, tmp_path: Path, claim: str) -> None:
    recorded = Manifest.model_validate_json((work / "release/manifest.json").read_bytes())
    table = recorded.calibration
    assert table is not None
    name = next(name for name, layer in table.layers.items() if layer.input_amax is not None)
    layer = table.layers[name].model_copy(update={"input_amax": 123.0})
    changes: dict[str, dict[str, object]] = {
        "dataset": {"dataset": "0" * 64},
        "frames": {"frames": (*table.frames[1:], table.frames[0])},
        "ranges": {"layers": {**table.layers, name: layer}},
    }
    result = verify(work, retold(work, tmp_path / "told", **changes[claim]))
    found = about_calibration(result)
    assert {metric for metric, verdict in found.items() if verdict == "fail"} == {
        f"calibration {claim}"
    }
