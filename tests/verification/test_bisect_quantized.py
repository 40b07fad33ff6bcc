"""Bisecting int8 releases: both graphs quantised alike, so that only the fault is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from libra_edge.bundle.manifest import Manifest, ReleaseFacts
from libra_edge.bundle.pack import write_release
from libra_edge.compiler.graphs.export import from_bytes, to_bytes
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.errors import ExitCode, InputError
from libra_edge.verification.bisect import Culprit, release_culprits
from libra_edge.verification.verify import verify_release
from tests.attacks.engines.surgery import store, tensor, values
from tests.compiler.quantization.test_calibration_data import episodes, write
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
    write_release(out, ReleaseFacts(**fields), files | {name: to_bytes(model)})
    return out


def culprits(work: Path, release: Path, out: Path, calibrate: str = "train") -> list[Culprit]:
    return release_culprits(
        release,
        work / "checkpoint",
        None,
        seed=0,
        cache=work / "cache",
        out=out,
        calibrate=work / calibrate,
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
            work / "release",
            work / "checkpoint",
            None,
            seed=0,
            cache=work / "cache",
            out=tmp_path / "out",
        )
    write(work / "others", episodes(first_seed=50))
    with pytest.raises(InputError, match="calibration-data-differs"):
        culprits(work, work / "release", tmp_path / "out", calibrate="others")


def test_ranges_that_were_found_in_another_way_are_no_reference(work: Path, tmp_path: Path) -> None:
    source = work / "release"
    facts = Manifest.model_validate_json((source / "manifest.json").read_bytes())
    fields = {field: getattr(facts, field) for field in ReleaseFacts.model_fields}
    fields["decisions"] = tuple(
        decision.model_copy(update={"reason": decision.reason.replace(" by max", " by entropy")})
        for decision in facts.decisions
    )
    files: dict[str, Path | bytes] = {member: source / member for member in facts.members}
    write_release(tmp_path / "release", ReleaseFacts(**fields), files)
    with pytest.raises(InputError, match="calibration-differs"):
        culprits(work, tmp_path / "release", tmp_path / "out")


def test_verify_holds_every_stage_of_a_quantized_release(work: Path) -> None:
    result = verify_release(
        work / "release",
        work / "checkpoint",
        samples=16,
        cache=work / "cache",
        gates=work / "gates.toml",
        allow_loose=True,
        calibrate=work / "train",
    )
    assert {
        "quantised vs PyTorch policy",
        "split vs quantised",
        "fused vs exported",
        "engine vs fused",
    } <= {check.stage for check in result.checks}
    assert result.left_out == ()
    assert result.exit_code is ExitCode.OK
    denoising = result.behind.denoising
    assert denoising is not None
    assert denoising.runs_in == "CPUExecutionProvider"
    assert denoising.steps[0].mean.value > 1e-5, "integers round"
