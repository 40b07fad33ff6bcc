"""What layers do alone and together, and the tables that say it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from typer.testing import CliRunner

from libra_edge.catalog import load_recipe
from libra_edge.cli import app as program
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.quantization.convert import convert
from libra_edge.compiler.quantization.quantize import Quantized, quantize
from libra_edge.compiler.search.sensitivity import Sensitivity, measure_layers
from libra_edge.compiler.search.simulation import Allowed, Effect, Trial
from libra_edge.engines.base import QdqForm
from libra_edge.evaluation.half import products_of
from libra_edge.evaluation.torch_controller import TorchEngines
from libra_edge.parity.gates import compare, run_engines
from libra_edge.parity.samples import Sample, choose_samples
from libra_edge.policy.checkpoint import Checkpoint, load_checkpoint
from libra_edge.report.sensitivities import markdown, svg
from tests.compiler.quantization.test_calibration_data import episodes, write
from tests.compiler.quantization.test_quantize import made_up
from tests.compiler.wide import write_wide_checkpoint

RECIPE = load_recipe("int4-awq")
FORM = QdqForm()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    torch.set_num_threads(1)
    return load_checkpoint(write_wide_checkpoint(tmp_path_factory.mktemp("trial") / "wide"))


@pytest.fixture(scope="module")
def quantized(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    stages = StageCache(tmp_path_factory.mktemp("trial-cache"))
    return quantize(checkpoint, RECIPE, made_up(checkpoint, 4), FORM, stages)


@pytest.fixture(scope="module")
def samples(checkpoint: Checkpoint) -> list[Sample]:
    config = checkpoint.config
    return choose_samples(config.embodiment, config, checkpoint.tokenizer, 40, 0, None)


@pytest.fixture(scope="module")
def trial(checkpoint: Checkpoint, quantized: Quantized, samples: list[Sample]) -> Trial:
    return Trial(checkpoint, RECIPE, quantized, FORM, samples)


@pytest.fixture(scope="module")
def ranked(trial: Trial, checkpoint: Checkpoint) -> list[Sensitivity]:
    return measure_layers(trial, checkpoint.policy, trial.allowed(load_recipe("int4-awq").gates))


def test_a_trial_judges_as_the_gates_do(
    trial: Trial, checkpoint: Checkpoint, quantized: Quantized, samples: list[Sample]
) -> None:
    nothing = trial.effect([])
    assert (nothing.tokens, nothing.margin, nothing.action) == (1.0, 0.0, 0.0)
    limits, dims = load_recipe("int4-awq").gates, checkpoint.config.embodiment.actions
    policy = convert(checkpoint.policy, quantized.ranges, quantized.precisions, FORM)
    expected = run_engines(TorchEngines(checkpoint.policy), samples)
    found = run_engines(TorchEngines(policy), samples, expected.intent)
    checks = {c.metric: c for c in compare("all", expected, found, dims, limits)}
    together, allowed = trial.effect(trial.layers), trial.allowed(limits)
    assert together.tokens == checks["tokens equal"].value < 1
    assert together.margin == pytest.approx(checks["margin of differing tokens"].value, rel=1e-4)
    assert allowed.margin == pytest.approx(checks["margin of differing tokens"].threshold, rel=1e-3)
    action = checks["p99 action error / range"].value
    assert together.action == pytest.approx(action, rel=1e-3)
    assert allowed.used(together) > 1, "random weights, 4 bits: a gate has to fail"


def test_a_trial_between_16_bit_floats_judges_as_the_gates_do(
    checkpoint: Checkpoint, quantized: Quantized, samples: list[Sample]
) -> None:
    form = QdqForm(rest="fp16")
    halved = {name: p.beside("fp16") for name, p in quantized.precisions.items()}
    between = Trial(checkpoint, RECIPE, replace(quantized, precisions=halved), form, samples)
    assert between.effect(()).action == 0, "nothing was run"
    alone = between.effect((), ("planner", "refiner"))
    assert 0 < alone.action < 0.005
    limits, dims = load_recipe("int4-awq").gates, checkpoint.config.embodiment.actions
    policy = convert(checkpoint.policy, quantized.ranges, halved, form)
    expected = run_engines(TorchEngines(checkpoint.policy), samples)
    with products_of(policy):
        found = run_engines(TorchEngines(policy), samples, expected.intent)
    checks = {c.metric: c for c in compare("all", expected, found, dims, limits)}
    together = between.effect(between.layers)
    assert together.tokens == pytest.approx(checks["tokens equal"].value, abs=0.01)
    assert together.action == pytest.approx(checks["p99 action error / range"].value, rel=0.1)
    between.rests = dict.fromkeys(between.rests, "fp32")
    assert between.effect((), ("planner", "refiner")).action == 0, "as it was trained"


def test_parts_are_told_apart_and_nothing_stays_changed(trial: Trial) -> None:
    planner = trial.effect([n for n in trial.layers if n.startswith("planner")])
    refiner = trial.effect([n for n in trial.layers if n.startswith("refiner")])
    assert planner.action == 0
    assert planner.tokens < 1
    assert max(planner.physical) > 0, "other tokens, other actions"
    assert refiner.tokens == 1
    assert refiner.margin_shift == 0
    assert refiner.action > 0
    assert trial.effect([]).action == 0
    assert trial.effect([n for n in trial.layers if n.startswith("refiner")]) == refiner


def test_the_worst_layer_comes_first(
    trial: Trial,
    ranked: list[Sensitivity],
    checkpoint: Checkpoint,
    quantized: Quantized,
    samples: list[Sample],
) -> None:
    assert {one.layer for one in ranked} == trial.layers.keys()
    used = [one.gate_used for one in ranked]
    assert used == sorted(used, reverse=True)
    best = min((one for one in ranked if one.layer.startswith("refiner")), key=_used).layer
    coarse = {**quantized.ranges}
    coarse[best] = replace(coarse[best], weight_amax=coarse[best].weight_amax * 8)
    spoilt = Trial(checkpoint, RECIPE, replace(quantized, ranges=coarse), FORM, samples)
    again = measure_layers(spoilt, checkpoint.policy, trial.allowed(load_recipe("int4-awq").gates))
    before = next(one for one in ranked if one.layer == best)
    after = next(one for one in again if one.layer == best)
    assert after.effect.action > 3 * before.effect.action
    assert again.index(after) < ranked.index(before)


def _used(one: Sensitivity) -> float:
    return one.gate_used


def test_page_and_picture_name_every_layer(
    ranked: list[Sensitivity], checkpoint: Checkpoint
) -> None:
    page = markdown("A title", ["About."], ranked, checkpoint.config.embodiment.actions)
    rows = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert [row.split("`")[1] for row in rows] == [one.layer for one in ranked]
    assert "dx [m]" in page
    picture = ElementTree.fromstring(svg("Layers < all & some", ranked))
    bars = [e for e in picture if e.tag.endswith("rect")][1:]
    widths = [float(bar.get("width", "0")) for bar in bars]
    assert len(bars) == len(ranked)
    assert widths == sorted(widths, reverse=True)
    assert "Layers < all & some" in "".join(picture.itertext())
    assert "http" not in "".join(picture.itertext())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("trial-data") / "set", episodes())


def test_the_command_writes_table_and_plot(
    checkpoint: Checkpoint, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "found"
    words = ["sensitivity", str(checkpoint.path), "--recipe", "int4-awq", "--calibrate"]
    words += [str(dataset), "--out", str(out), "--samples", "16", "--calibration-samples", "4"]
    result = CliRunner().invoke(program.app, [*words, "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in out.iterdir()} == {
        f"sensitivity.{e}" for e in ("json", "md", "svg")
    }
    report = json.loads((out / "sensitivity.json").read_text())
    assert report["recipe"] == "int4-awq"
    first = report["layers"][0]
    assert first["layer"] in result.stdout
    assert first["gate_used"] == max(layer["gate_used"] for layer in report["layers"])
    assert len(first["effect"]["physical"]) == 3
    lines = result.stdout.splitlines()
    assert (
        max(map(len, lines[: lines.index(next(x for x in lines if x.startswith("gates")))])) <= 80
    )
    assert lines[-1].startswith("ok: ")
    again = CliRunner().invoke(program.app, [*words, "--json"])
    assert again.exit_code == 2
    assert json.loads(again.stdout)["error"]["code"] == "destination-exists"


def test_a_gate_that_allows_no_other_token_is_a_gate() -> None:
    strictest = Allowed(tokens=1.0, margin=0.5, action=0.1)
    assert strictest.used(Effect(1.0, 0.1, 0.0, 0.05, ())) == pytest.approx(0.5)
    assert strictest.used(Effect(0.999, 0.1, 0.0, 0.05, ())) > 1


@pytest.mark.parametrize(
    ("recipe", "code", "status"),
    [
        ("fp32", "recipe-quantises-nothing", 2),
        ("fp8", "recipe-unsupported", 4),
        ("int9", "unknown-recipe", 2),
    ],
)
def test_what_cannot_be_measured_is_refused(
    checkpoint: Checkpoint, dataset: Path, tmp_path: Path, recipe: str, code: str, status: int
) -> None:
    out = tmp_path / "found"
    words = ["sensitivity", str(checkpoint.path), "--recipe", recipe, "--out", str(out)]
    words += ["--calibrate", str(dataset), "--cache", str(tmp_path / "cache"), "--json"]
    result = CliRunner().invoke(program.app, words)
    assert result.exit_code == status
    assert json.loads(result.stdout)["error"]["code"] == code
    assert list(tmp_path.iterdir()) == []
